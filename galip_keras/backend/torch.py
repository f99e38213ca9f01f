"""PyTorch: autodiff, on one device.

`backend/__init__.py` says what the functions promise.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
import torch
from keras import ops
from torch.nn import functional

from galip_keras import processor
from galip_keras.backend.common import (  # noqa: F401
    Pull,
    Tensor,
    can_export,
    can_jit,
    doubled_taps,
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


def has_bfloat16() -> bool:
    """Whether the device has units that multiply in bfloat16."""
    if is_cpu():
        return processor.has_bfloat16()
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


# A map that is channels last is, permuted, what PyTorch calls a contiguous map in the
# memory format `channels_last`. The functions below take such views, while
# `ops.conv` copies every map twice.


def conv2d(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: str) -> Tensor:
    """A convolution of maps that are channels last, with stride 1."""
    x, kernel = x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return functional.conv2d(x, kernel, bias, padding=padding).permute(0, 2, 3, 1)


def patch_conv2d(x: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """A convolution that can be differentiated twice in any precision.

    On a CPU, PyTorch's own cannot in half precision. There it is one matrix product
    over the patches, which are few on the small maps of a CLIP.
    """
    if kernel.dtype == torch.float32:
        return conv2d(x, kernel, None, padding)
    size = kernel.shape[0]
    if padding == "same":
        x = functional.pad(x, [0, 0, *[size // 2] * 4])
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    patches = [
        x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)
    ]
    return torch.cat(patches, dim=-1) @ kernel.reshape(-1, kernel.shape[-1])


def double_conv2d(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A doubling and a 3x3 convolution, as one transposed convolution."""
    # The result has the order in memory that PyTorch reads.
    rows = torch.stack(doubled_taps(*kernel.unbind()))
    columns = doubled_taps(*rows.permute(1, 2, 0, 3).unbind())
    kernel = torch.stack(columns, dim=2).permute(0, 3, 1, 2)
    x = functional.conv_transpose2d(
        x.permute(0, 3, 1, 2), kernel, bias, stride=2, padding=1
    )
    return x.permute(0, 2, 3, 1)


def lay_out(kernel: keras.Variable) -> None:
    """Keep a kernel in memory in the order that `conv2d` reads."""
    data = kernel.value.data.permute(3, 2, 0, 1)
    data = data.contiguous(memory_format=torch.channels_last)
    kernel.value.data = data.permute(2, 3, 1, 0)


def scaled_leaky_relu(x: Tensor, scale: Tensor, shift: Tensor, slope: float) -> Tensor:
    """`leaky_relu(x * scale + shift)`, with one new map instead of three."""
    x = torch.addcmul(shift, x, scale)
    return functional.leaky_relu(x, slope, inplace=True)


def share(num_devices: int) -> NoReturn:
    """Refuses: PyTorch trains on one device."""
    raise ValueError("torch trains on one device: leave `num_devices` out")


def is_cpu() -> bool:
    """Whether Keras creates its tensors on a CPU."""
    return ops.zeros(()).device.type == "cpu"


def repeatable() -> None:
    """Make the ops deterministic, with a warning for those that cannot be."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No op here reads memory before it was written, so it need not be filled first.
    settings: Any = torch.utils.deterministic
    settings.fill_uninitialized_memory = False
