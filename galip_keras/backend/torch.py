"""PyTorch: autodiff, on one device.

`backend/__init__.py` says what the functions promise.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
import torch
from keras import ops

from galip_keras.backend.common import (  # noqa: F401
    Pull,
    Tensor,
    can_export,
    hide_gpus_from_tensorflow,
    highest,
    join,
    process,
    roll,
)


def run_step(model: keras.Model, step: Callable[[Any], Any], data: Any) -> Any:
    """Run `step(data)`. Only the functions below record for the backward pass."""
    with torch.no_grad():
        return step(data)


def value_and_gradient(
    fn: Callable[[], tuple[Tensor, Any]], variables: Sequence[keras.Variable]
) -> tuple[tuple[Tensor, Any], Sequence[Tensor]]:
    """`fn() -> (value, aux)`. Returns `(value, aux), gradients`."""
    (value, aux), pull = pullback(fn, variables)
    gradients = pull((torch.ones_like(value), None))
    return keras.tree.map_structure(_detach, (value, aux)), gradients


def _detach(value):
    return value.detach() if torch.is_tensor(value) else value


def pullback(
    fn: Callable[[], tuple[Tensor, ...]], variables: Sequence[keras.Variable]
) -> tuple[tuple[Tensor, ...], Pull]:
    """`fn() -> outputs` (a tuple). Returns `outputs, pull`.

    `pull(cotangents)` gives a gradient per variable, zeros where there is no path;
    a cotangent of None leaves its output out. It can be called once.
    """
    with torch.enable_grad():
        outputs = fn()

    def pull(cotangents):
        pairs = [(o, c) for o, c in zip(outputs, cotangents) if c is not None]
        return torch.autograd.grad(
            [o for o, _ in pairs],
            [v.value for v in variables],
            grad_outputs=[c for _, c in pairs],
            materialize_grads=True,
        )

    return outputs, pull


def value_and_input_gradient(
    fn: Callable[..., tuple[Tensor, Any]], *inputs: Tensor
) -> tuple[tuple[Tensor, Any], Sequence[Tensor]]:
    """`fn(*inputs) -> (value, aux)`. Returns `(value, aux), gradients`."""
    differentiate_again = torch.is_grad_enabled()
    with torch.enable_grad():
        watched = [x.detach().requires_grad_() for x in inputs]
        value, aux = fn(*watched)
        gradients = torch.autograd.grad(
            value, watched, create_graph=differentiate_again
        )
    return (value, aux), gradients


def apply(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    variables: Sequence[keras.Variable],
) -> None:
    """One update of the variables by the optimizer."""
    optimizer.apply(gradients, variables)


def supports_attention(dtype: str) -> bool:
    """Whether Keras' attention works in a dtype on this device."""
    return True


def should_jit(model: keras.Model, steps: int = 0) -> bool:
    """Whether compiling saves more time than it takes."""
    # torch.compile cannot differentiate twice.
    return False


def share(num_devices: int) -> NoReturn:
    """Refuses: PyTorch trains on one device."""
    raise ValueError("torch trains on one device: leave `num_devices` out")


def is_cpu() -> bool:
    """Whether Keras creates its tensors on a CPU."""
    return ops.zeros(()).device.type == "cpu"


def repeatable() -> None:
    """Make the ops deterministic, with a warning for those that cannot be."""
    torch.use_deterministic_algorithms(True, warn_only=True)
