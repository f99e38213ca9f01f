"""Autodiff verbs on TensorFlow; `backend/__init__.py` says what they promise."""

import tensorflow as tf

# Parameters of a model, and steps of a run, from which on it is compiled on a CPU.
_LARGE = 1e7
_MANY = 1000


def run_step(model, step, data):
    """Runs `step(data)`; TensorFlow variables carry their own state."""
    return step(data)


def value_and_gradient(fn, variables):
    """`fn() -> (value, aux)`. Returns `(value, aux), gradients`."""
    (value, aux), pull = pullback(fn, variables)
    return (value, aux), pull((tf.ones_like(value), None))


def pullback(fn, variables):
    """`fn() -> outputs` (a tuple). Returns `outputs, pull`.

    `pull(cotangents)` gives a gradient per variable, zeros where there is no path;
    a cotangent of None leaves its output out. It can be called once.
    """
    # Everything else that `fn` reads (frozen CLIP weights, the other network) stays
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


def value_and_input_gradient(fn, *inputs):
    """`fn(*inputs) -> (value, aux)`. Returns `(value, aux), gradients`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        value, aux = fn(*inputs)
    return (value, aux), tape.gradient(value, inputs)


def apply(optimizer, gradients, variables):
    """One update of the variables by the optimizer."""
    # Keras sums the gradients of the devices; the losses are means.
    count = tf.distribute.get_strategy().num_replicas_in_sync
    optimizer.apply([g / count for g in gradients], variables)


def supports_attention(dtype):
    """Whether Keras' attention works in a dtype on this device."""
    return True


def should_jit(model, steps=0):
    """Whether XLA makes up, in so many training steps, for the time that it compiles.

    By default for a model of which nothing is known but its size.
    """
    if tf.distribute.has_strategy():
        # Gradients cannot be summed over devices inside of a compiled step.
        return False
    # It fuses what lies between the convolutions, which is much of a large model's time
    # on a CPU too, where Keras leaves it off. A small model gains little there.
    is_large = model.count_params() > _LARGE
    return is_large or steps > _MANY or bool(tf.config.list_physical_devices("GPU"))
