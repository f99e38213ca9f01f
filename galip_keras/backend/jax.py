"""Autodiff verbs on JAX; `backend/__init__.py` says what they promise.

JAX differentiates functions of values, Keras layers read variables. In an open
`keras.StatelessScope` a variable reads as the value it was mapped to.
"""

import contextlib

import jax
import keras

_open_scopes: list[keras.StatelessScope] = []


@contextlib.contextmanager
def _scope(variables, values):
    scope = keras.StatelessScope(list(zip(variables, values)))
    if _open_scopes:
        # Keras asks the innermost scope only, and a variable missing there silently
        # reads as what it was before the step: hand down the outer values.
        scope.state_mapping = {**_open_scopes[-1].state_mapping, **scope.state_mapping}
    _open_scopes.append(scope)
    try:
        with scope:
            yield scope
    finally:
        _open_scopes.pop()


def run_step(model, step, state, data):
    """Runs `step(data)` as a pure function. Returns `logs, new state`."""
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


def value_and_gradient(fn, variables):
    """`fn() -> (value, aux)`. Returns `(value, aux), gradients`."""
    function = jax.value_and_grad(_by_values(fn, variables), has_aux=True)
    return function([v.value for v in variables])


def pullback(fn, variables):
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


def value_and_input_gradient(fn, *inputs):
    """`fn(*inputs) -> (value, aux)`. Returns `(value, aux), gradients`."""
    function = jax.value_and_grad(fn, tuple(range(len(inputs))), has_aux=True)
    return function(*inputs)


def apply(optimizer, gradients, variables):
    """One update of the variables by the optimizer."""
    state, values = ([v.value for v in vs] for vs in (optimizer.variables, variables))
    # A loss scale chooses between two updates. JAX wants both to be pure.
    values, state = optimizer.stateless_apply(state, gradients, values)
    for variable, value in zip([*variables, *optimizer.variables], [*values, *state]):
        variable.assign(value)


def supports_attention(dtype):
    """Whether Keras' attention works in a dtype on this device."""
    return dtype != "float16" or jax.default_backend() != "cpu"


def should_jit(model, steps=0):
    """Whether compiling makes up for the time that it takes."""
    return True
