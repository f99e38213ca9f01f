"""The named tensors of a checkpoint, each to be taken exactly once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np


class Tensors:
    """Named arrays in PyTorch's layout, each to be taken exactly once.

    Args:
        tensors: dict of arrays by name, or of what `np.asarray` reads. It is emptied as
            tensors are taken.
        prefix: string. What all names that are asked for begin with.
    """

    def __init__(self, tensors: dict[str, Any], prefix: str = "") -> None:
        self.tensors = tensors
        self.prefix = prefix

    def under(self, prefix: str) -> Tensors:
        """The same tensors, with names relative to a longer prefix."""
        return Tensors(self.tensors, self.prefix + prefix)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not taken."""
        return tuple(self._find(name).shape)

    def peek(self, name: str) -> np.ndarray:
        """A tensor as float32, which is not taken."""
        # Read it only now: the whole file need not be in memory.
        return np.asarray(self._find(name)).astype("float32", copy=False)

    def take(self, name: str) -> np.ndarray:
        """A tensor as float32, which nobody else can take.

        Raises:
            ValueError: if there is no such tensor, or it was taken before.
        """
        value = self.peek(name)
        del self.tensors[self.prefix + name]
        return value

    def drop(self, name: str) -> None:
        """Take a tensor that the model does not need, if there is one."""
        self.tensors.pop(self.prefix + name, None)

    def count(self, pattern: str) -> int:
        """The number of different matches of a regular expression's only group."""
        found = (re.match(pattern, name) for name in self.tensors)
        return len({match[1] for match in found if match})

    def check_empty(self) -> None:
        """Raise a ValueError if a tensor is left that nobody took."""
        if self.tensors:
            names = sorted(self.tensors)
            raise ValueError(
                f"The checkpoint holds {len(names)} tensors that the model has no "
                f"place for: {', '.join(names[:3])}{', ...' if names[3:] else ''}."
            )

    def _find(self, name: str) -> Any:
        if self.prefix + name not in self.tensors:
            raise ValueError(f"The checkpoint has no tensor {self.prefix + name!r}.")
        return self.tensors[self.prefix + name]


def assign(variable: keras.Variable, value: np.ndarray) -> None:
    """Assign a value to a variable of the same shape."""
    if tuple(variable.shape) != value.shape:
        raise ValueError(
            f"The checkpoint's tensor for {variable.path} has the shape {value.shape}; "
            f"{tuple(variable.shape)} was expected."
        )
    variable.assign(value)


def assign_conv(layer: keras.Layer, tensors: Tensors) -> None:
    """Assign the weights of a convolution, channels last."""
    assign(layer.kernel, tensors.take("weight").transpose(2, 3, 1, 0))
    if layer.use_bias:
        assign(layer.bias, tensors.take("bias"))


def assign_dense(layer: keras.Layer, tensors: Tensors) -> None:
    """Assign the weights of a dense layer."""
    assign(layer.kernel, tensors.take("weight").T)
    assign(layer.bias, tensors.take("bias"))


def assign_norm(layer: keras.Layer, tensors: Tensors) -> None:
    """Assign the weights of a layer normalization."""
    assign(layer.gamma, tensors.take("weight"))
    assign(layer.beta, tensors.take("bias"))


def without_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the names that wrappers of modules add.

    Training on several GPUs and averaging add `module`, compiling adds `_orig_mod`,
    around the model or around a part of it, in any order.

    Raises:
        ValueError: if two tensors get the same name.
    """
    result: dict[str, Any] = {}
    for name, value in state.items():
        parts = [x for x in str(name).split(".") if x not in ("module", "_orig_mod")]
        plain = ".".join(parts)
        if plain in result:
            raise ValueError(f"The checkpoint holds two tensors {plain!r}.")
        result[plain] = value
    return result
