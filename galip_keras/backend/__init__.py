"""Autodiff and devices: the few verbs that `keras.ops` lacks, one file per backend.

Keras chooses the backend once, and nothing outside this package branches on it. Every
backend's file defines the same functions. For autodiff:

- `run_step(model, step, *args)`: one training step as `keras.Model.train_step`.
- `value_and_gradient(fn, variables)`: the value of `fn()` and its gradient.
- `pullback(fn, variables)`: the value of `fn()` now, its gradient later.
- `value_and_input_gradient(fn, *inputs)`: the value of `fn(*inputs)` and its
  gradient with respect to the inputs, differentiable once more.
- `apply(optimizer, gradients, variables)`: one update, in place.
- `supports_attention(dtype)`: whether Keras' attention works in it on this device.
- `can_jit()`: whether the backend's own compiler may be used here.

`fn` may read any variable and must assign none. For maps that are channels last:

- `conv2d(x, kernel, bias, padding)`: a convolution with stride 1.
- `patch_conv2d(x, kernel, padding)`: a convolution with stride 1 and without bias that
  can be differentiated twice in any precision.
- `double_conv2d(x, kernel, bias)`: a doubling by nearest neighbour and a 3x3
  convolution, as one transposed convolution.
- `lay_out(kernel)`: keeps a kernel in memory as `conv2d` reads it.
- `scaled_leaky_relu(x, scale, shift, slope)`: `leaky_relu(x * scale + shift)`.

For devices and processes:

- `join(coordinator, num_processes, process_id)`: makes this process one of several
  that train together, and waits for the others.
- `process()`: `(index, count)` of the processes that train together.
- `highest(number)`: the highest number of any process. Waits for all of them.
- `share(num_devices)`: a context in which devices share each batch; see `use`.
- `is_cpu()`: whether the CPU is the only device.
- `has_bfloat16()`: whether the device has units that multiply in bfloat16.
- `roll(x)`: the rows of a batch moved up by one, the first to the end, over all devices
  that share it. In a training step `x` is this device's share.
- `repeatable()`: from here on the same program gives the same numbers, on a CPU bit for
  bit.
- `can_export()`: whether Keras exports models on this backend to all of our formats.
- `hide_gpus_from_tensorflow()`: keeps TensorFlow, which reads data for every backend,
  from taking the GPUs of another one.

What is fastest on a backend is said in `choices.py`, which the last functions here ask.
"""

import contextlib
import contextvars
import functools
import importlib
from collections.abc import Iterator

import keras

from galip_keras.backend import choices
from galip_keras.backend.choices import DIRECT, TRANSPOSED  # noqa: F401
from galip_keras.backend.common import Shape, Tensor  # noqa: F401

_BACKENDS = ("tensorflow", "jax", "torch")

if keras.backend.backend() not in _BACKENDS:
    raise ValueError(
        f"GALIP runs on the backends {', '.join(_BACKENDS)}; "
        f"KERAS_BACKEND is {keras.backend.backend()!r}."
    )

_verbs = importlib.import_module(f"{__name__}.{keras.backend.backend()}")

run_step = _verbs.run_step
value_and_gradient = _verbs.value_and_gradient
pullback = _verbs.pullback
value_and_input_gradient = _verbs.value_and_input_gradient
apply = _verbs.apply
supports_attention = _verbs.supports_attention

conv2d = _verbs.conv2d
patch_conv2d = _verbs.patch_conv2d
double_conv2d = _verbs.double_conv2d
lay_out = _verbs.lay_out
scaled_leaky_relu = _verbs.scaled_leaky_relu

join = _verbs.join
process = _verbs.process
highest = _verbs.highest
is_cpu = _verbs.is_cpu
has_bfloat16 = _verbs.has_bfloat16
roll = _verbs.roll
repeatable = _verbs.repeatable
can_export = _verbs.can_export
hide_gpus_from_tensorflow = _verbs.hide_gpus_from_tensorflow


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return process()[0] == 0


def barrier() -> None:
    """Wait until all processes are here."""
    highest(0)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Run the body in the process that writes, and only then in the others."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Run the body without waiting for other processes.

    Keras creates variables even while it saves some, and shares them among all devices.
    """
    if process()[1] == 1:
        yield
        return
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


@contextlib.contextmanager
def use(num_devices: int) -> Iterator[bool]:
    """Let models that are built and trained inside share each batch among devices.

    Args:
        num_devices: int. Devices of this machine; with several processes, of each.

    Yields:
        Whether there are several devices.

    Raises:
        ValueError: if there are fewer devices, or the backend trains on one only.
    """
    if num_devices == 1 and process()[1] == 1:
        yield False
    else:
        with _verbs.share(num_devices):
            yield True


@functools.cache
def _place():
    return choices.Place(keras.backend.backend(), is_cpu(), has_bfloat16())


def should_jit(model: keras.Model, is_varied: bool = False) -> bool:
    """Whether XLA saves more time than compiling takes: see `choices.compiles`."""
    if not _verbs.can_jit():
        return False
    return choices.compiles(
        _place(), model.compute_dtype, model.count_params(), is_varied
    )


# Only JAX compiles what is not said to be compiled.
_is_compiled = contextvars.ContextVar(
    "is_compiled", default=keras.backend.backend() == "jax"
)


@contextlib.contextmanager
def compiled(by_xla: bool) -> Iterator[None]:
    """Say whether XLA compiles what runs inside, which then takes the best form."""
    token = _is_compiled.set(by_xla)
    try:
        yield
    finally:
        _is_compiled.reset(token)


def resize_form(old_size: int, size: int) -> str:
    """The form of a resize with its convolution: see `choices.resize_form`."""
    return choices.resize_form(_is_compiled.get(), old_size, size)


def fast_precision() -> str:
    """What images are made in fastest: `"bfloat16"` or `"float32"`."""
    return "bfloat16" if choices.is_bfloat16_fast(_place()) else "float32"


def _set_jit_compile(model, value):
    # Keras never compiles where TensorFlow has to be deterministic, since XLA lacks
    # some such ops on a GPU. On a CPU the same program gives the same numbers anyway.
    if value and is_cpu():
        model._jit_compile = value
    else:
        keras.Model.jit_compile.fset(model, value)


# For models whose ops are known.
jit_compile = keras.Model.jit_compile.setter(_set_jit_compile)
