"""TensorFlow: autodiff, and several devices of one machine by `tf.distribute`.

`backend/__init__.py` says what the functions promise.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from galip_keras import processor
from galip_keras.backend import common
from galip_keras.backend.common import (  # noqa: F401
    Pull,
    Tensor,
    conv2d,
    double_conv2d,
    highest,
    is_cpu,
    join,
    lay_out,
    patch_conv2d,
    process,
    scaled_leaky_relu,
)


def run_step(model: keras.Model, step: Callable[[Any], Any], data: Any) -> Any:
    """Run `step(data)`; TensorFlow variables carry their own state."""
    return step(data)


def value_and_gradient(
    fn: Callable[[], tuple[Tensor, Any]], variables: Sequence[keras.Variable]
) -> tuple[tuple[Tensor, Any], Sequence[Tensor]]:
    """`fn() -> (value, aux)`. Returns `(value, aux), gradients`."""
    (value, aux), pull = pullback(fn, variables)
    return (value, aux), pull((tf.ones_like(value), None))


def pullback(
    fn: Callable[[], tuple[Tensor, ...]], variables: Sequence[keras.Variable]
) -> tuple[tuple[Tensor, ...], Pull]:
    """`fn() -> outputs` (a tuple). Returns `outputs, pull`.

    `pull(cotangents)` gives a gradient per variable, zeros where there is no path;
    a cotangent of None leaves its output out. It can be called once.
    """
    # Whatever else `fn` reads (frozen CLIP weights, the other network) stays
    # off the tape: watching it would keep its activations alive for nothing.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([v.value for v in variables])
        outputs = fn()

    def pull(cotangents):
        pairs = [(o, c) for o, c in zip(outputs, cotangents) if c is not None]
        return tape.gradient(
            [o for o, _ in pairs],
            [v.value for v in variables],
            output_gradients=[c for _, c in pairs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    return outputs, pull


def value_and_input_gradient(
    fn: Callable[..., tuple[Tensor, Any]], *inputs: Tensor
) -> tuple[tuple[Tensor, Any], Sequence[Tensor]]:
    """`fn(*inputs) -> (value, aux)`. Returns `(value, aux), gradients`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        value, aux = fn(*inputs)
    return (value, aux), tape.gradient(value, inputs)


def apply(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    variables: Sequence[keras.Variable],
) -> None:
    """One update of the variables by the optimizer."""
    # Keras sums the gradients of the devices; the losses are means.
    count = tf.distribute.get_strategy().num_replicas_in_sync
    optimizer.apply([g / count for g in gradients], variables)


def supports_attention(dtype: str) -> bool:
    """Whether Keras' attention works in a dtype on this device."""
    return True


def can_jit() -> bool:
    """Whether a step may be compiled."""
    # Gradients cannot be summed over devices inside of a compiled step.
    return not tf.distribute.has_strategy()


def has_bfloat16() -> bool:
    """Whether the device has units that multiply in bfloat16."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return processor.has_bfloat16()
    details = tf.config.experimental.get_device_details(gpus[0])
    return details.get("compute_capability", (0, 0)) >= (8, 0)


def share(num_devices: int) -> contextlib.AbstractContextManager[None]:
    """A context in which devices of this machine share each batch."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    common.check_count(num_devices, len(devices), kind)
    return tf.distribute.MirroredStrategy(devices[:num_devices]).scope()


def roll(x: Tensor) -> Tensor:
    """Move the rows of a batch up by one, over all devices that share it."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return common.roll(x)
    rows = tf.shape(x)[0]
    first = context.replica_id_in_sync_group * rows
    rolled = common.roll(context.all_gather(x, axis=0))
    return tf.ensure_shape(rolled[first : first + rows], x.shape)


def repeatable() -> None:
    """Make the ops deterministic."""
    tf.config.experimental.enable_op_determinism()


def hide_gpus_from_tensorflow() -> None:
    """Do nothing: the GPUs are TensorFlow's own."""


def can_export() -> bool:
    """Whether models can be exported: they can."""
    return True
