"""The precision that a model computes in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from galip_keras import backend

# What images can be computed in.
PRECISIONS = ("float32", "bfloat16", "float16")

# Files of a preset that name dtype policies.
_CONFIGS = ("config.json", "task.json")


def set_precision(model: keras.Layer, precision: str | keras.DTypePolicy) -> None:
    """Set the dtype policy of a model and of everything in it.

    Weights stay float32.

    Args:
        model: a `keras.Layer`.
        precision: string or `keras.DTypePolicy`, such as `"mixed_bfloat16"`.
    """
    policy = keras.dtype_policies.get(precision)
    for layer in model._flatten_layers():
        layer.dtype_policy = policy
    if not backend.supports_attention(policy.compute_dtype):
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.MultiHeadAttention):
                set_precision(layer, "float32")


@contextlib.contextmanager
def computing_in(
    model: keras.Layer, precision: str | keras.DTypePolicy
) -> Iterator[None]:
    """Let a model compute in another precision inside, as `set_precision` does."""
    policies = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    set_precision(model, precision)
    try:
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def with_policy(config: Any, policy: keras.DTypePolicy) -> Any:
    """Replace every dtype policy in the serialized config of a layer.

    Args:
        config: the value of `get_config`, or a part of it.
        policy: a `keras.DTypePolicy`.

    Returns:
        A copy of `config`.
    """
    if isinstance(config, list):
        return [with_policy(x, policy) for x in config]
    if not isinstance(config, dict):
        return config
    return {
        name: keras.dtype_policies.serialize(policy)
        if name == "dtype"
        else with_policy(value, policy)
        for name, value in config.items()
    }


def forget_mixed_precision(folder: str | Path) -> None:
    """Let a preset say the dtype of its weights instead of a mixed policy.

    Who loads a preset chooses the precision, and keras-hub cannot load a mixed one.

    Args:
        folder: path. The preset folder, which is changed in place.
    """
    for path in (Path(folder) / name for name in _CONFIGS):
        if path.is_file():
            text = re.sub(r'"mixed_b?float16"', '"float32"', path.read_text())
            path.write_text(text)
