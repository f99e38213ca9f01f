"""Device functions that several backends share; `backend/__init__.py` lists them."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

# The tensors of three backends and Keras' symbolic ones have no type in common.
Tensor = Any
# An axis of unknown size is None. `Any` lets layers compute with the known ones.
Shape = tuple[int | Any, ...]
# From a cotangent for each output, or None, to a gradient for each variable.
Pull = Callable[[Sequence[Tensor | None]], Sequence[Tensor]]


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Refuses: the backend trains in one process."""
    raise ValueError(
        "several processes train together on JAX only, not on "
        f"{keras.config.backend()}: set KERAS_BACKEND=jax"
    )


def process() -> tuple[int, int]:
    """`(index, count)` of a single process."""
    return 0, 1


def highest(number: int) -> int:
    """The highest number of a single process."""
    return number


def is_cpu() -> bool:
    """Whether the CPU is the only device."""
    return "cpu" in keras.distribution.list_devices()[0].lower()


def roll(x: Tensor) -> Tensor:
    """Move the rows of a batch up by one, the first to the end."""
    return ops.roll(x, -1, axis=0)


def conv2d(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: str) -> Tensor:
    """A convolution of maps that are channels last, with stride 1."""
    x = ops.conv(x, kernel, padding=padding, data_format="channels_last")
    return x if bias is None else x + bias


def patch_conv2d(x: Tensor, kernel: Tensor, padding: str) -> Tensor:
    """A convolution that can be differentiated twice in any precision."""
    return conv2d(x, kernel, None, padding)


def double_conv2d(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A doubling and a 3x3 convolution, as one transposed convolution."""
    rows = ops.stack(doubled_taps(*ops.unstack(kernel, axis=0)))
    kernel = ops.stack(doubled_taps(*ops.unstack(rows, axis=1)), axis=1)
    kernel = ops.transpose(kernel, (0, 1, 3, 2))
    x = ops.conv_transpose(x, kernel, 2, "same", data_format="channels_last")
    return x + bias


def doubled_taps(first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, ...]:
    """Sum the taps along an axis that meet copies of one pixel after a doubling.

    Returns:
        The four taps of the transposed convolution, in its order.
    """
    return third, second + third, first + second, first


def lay_out(kernel: keras.Variable) -> None:
    """Do nothing: kernels are read as Keras keeps them."""


def scaled_leaky_relu(x: Tensor, scale: Tensor, shift: Tensor, slope: float) -> Tensor:
    """`leaky_relu(x * scale + shift)`."""
    return ops.leaky_relu(x * scale + shift, negative_slope=slope)


def repeatable() -> None:
    """Do nothing: the backend repeats its numbers anyway."""


def can_jit() -> bool:
    """Whether a step may be compiled: it may."""
    return True


def can_export() -> bool:
    """Whether models can be exported: they are exported with TensorFlow."""
    return False


def hide_gpus_from_tensorflow() -> None:
    """Keep TensorFlow, which only reads data, from taking this backend's GPUs."""
    import tensorflow as tf

    # Too late if the caller has used TensorFlow before: then the choice is theirs.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")


def check_count(wanted: int, count: int, kind: str) -> None:
    """Raise a `ValueError` if there are fewer devices than wanted."""
    if wanted > count:
        raise ValueError(f"{wanted} devices were asked for, there are {count} ({kind})")
