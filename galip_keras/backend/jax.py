"""JAX: autodiff, several devices by `keras.distribution`, and several machines.

`backend/__init__.py` says what the functions promise.

JAX differentiates functions of values, Keras layers read variables. In an open
`keras.StatelessScope` a variable reads as the value it was mapped to.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from galip_keras import processor
from galip_keras.backend import common, xla
from galip_keras.backend.common import (  # noqa: F401
    Pull,
    Tensor,
    can_export,
    can_jit,
    conv2d,
    double_conv2d,
    hide_gpus_from_tensorflow,
    is_cpu,
    lay_out,
    patch_conv2d,
    repeatable,
    roll,
    scaled_leaky_relu,
)

xla.avoid_slow_kernels()
_open_scopes: list[keras.StatelessScope] = []


@contextlib.contextmanager
def _scope(variables, values):
    scope = keras.StatelessScope(list(zip(variables, values)))
    if _open_scopes:
        # Keras asks the innermost scope only. A variable missing there silently reads
        # as its value before the step: hand down the outer values.
        scope.state_mapping = {**_open_scopes[-1].state_mapping, **scope.state_mapping}
    _open_scopes.append(scope)
    try:
        with scope:
            yield scope
    finally:
        _open_scopes.pop()


def run_step(
    model: keras.Model, step: Callable[[Any], Any], state: Any, data: Any
) -> tuple[Any, Any]:
    """Run `step(data)` as a pure function. Return `logs, new state`."""
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    variables = [v for group in groups for v in group]
    values = [v for group in state for v in group]
    with _scope(variables, values) as scope:
        logs = step(data)
    state = tuple([scope.get_current_value(v) for v in group] for group in groups)
    return logs, state


def _by_values(fn, variables):
    def function(values):
        with _scope(variables, values):
            return fn()

    return function


def value_and_gradient(
    fn: Callable[[], tuple[Tensor, Any]], variables: Sequence[keras.Variable]
) -> tuple[tuple[Tensor, Any], Sequence[Tensor]]:
    """`fn() -> (value, aux)`. Returns `(value, aux), gradients`."""
    function = jax.value_and_grad(_by_values(fn, variables), has_aux=True)
    return function([v.value for v in variables])


def pullback(
    fn: Callable[[], tuple[Tensor, ...]], variables: Sequence[keras.Variable]
) -> tuple[tuple[Tensor, ...], Pull]:
    """`fn() -> outputs` (a tuple). Returns `outputs, pull`.

    `pull(cotangents)` gives a gradient per variable, zeros where there is no path;
    a cotangent of None leaves its output out.
    """
    outputs, vjp = jax.vjp(_by_values(fn, variables), [v.value for v in variables])

    def pull(cotangents):
        zeros = [jax.numpy.zeros_like(o) for o in outputs]
        filled = [z if c is None else c for z, c in zip(zeros, cotangents)]
        return vjp(tuple(filled))[0]

    return outputs, pull


def value_and_input_gradient(
    fn: Callable[..., tuple[Tensor, Any]], *inputs: Tensor
) -> tuple[tuple[Tensor, Any], Sequence[Tensor]]:
    """`fn(*inputs) -> (value, aux)`. Returns `(value, aux), gradients`."""
    function = jax.value_and_grad(fn, tuple(range(len(inputs))), has_aux=True)
    return function(*inputs)


def apply(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    variables: Sequence[keras.Variable],
) -> None:
    """One update of the variables by the optimizer."""
    state, values = ([v.value for v in vs] for vs in (optimizer.variables, variables))
    # A loss scale chooses between two updates. JAX wants both to be pure.
    values, state = optimizer.stateless_apply(state, gradients, values)
    for variable, value in zip([*variables, *optimizer.variables], [*values, *state]):
        variable.assign(value)


def supports_attention(dtype: str) -> bool:
    """Whether Keras' attention works in a dtype on this device."""
    return dtype != "float16" or jax.default_backend() != "cpu"


def has_bfloat16() -> bool:
    """Whether the device has units that multiply in bfloat16."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return processor.has_bfloat16()
    capability = getattr(device, "compute_capability", "").partition(".")[0]
    return device.platform == "tpu" or (capability.isdigit() and int(capability) >= 8)


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Make this process one of several that train together. Wait for the others.

    Args:
        coordinator: string. `HOST:PORT` of process 0.
        num_processes: int.
        process_id: int, from 0.

    Raises:
        OSError: if the others do not come.
    """
    try:
        keras.distribution.initialize(coordinator, num_processes, process_id)
    except RuntimeError as error:
        raise OSError(
            f"process {process_id} of {num_processes} could not join the others at "
            f"{coordinator} ({error})"
        ) from error


def process() -> tuple[int, int]:
    """`(index, count)` of the processes that train together."""
    return jax.process_index(), jax.process_count()


def highest(number: int) -> int:
    """The highest number of any process. Waits for all of them."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.asarray(number))))


@contextlib.contextmanager
def share(num_devices: int) -> Iterator[None]:
    """A context in which the devices of all processes share each batch."""
    names = _devices(num_devices)
    previous = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(previous)


def _devices(num_devices):
    mine = [d for d in jax.devices() if d.process_index == jax.process_index()]
    common.check_count(num_devices, len(mine), mine[0].platform.upper())
    names = keras.distribution.list_devices()
    if jax.process_count() == 1:
        return names[:num_devices]
    if num_devices < len(mine):
        raise ValueError(
            f"every process takes all of its {len(mine)} devices: hide the others, "
            "for instance with CUDA_VISIBLE_DEVICES"
        )
    return names
