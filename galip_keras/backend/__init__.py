"""The few autodiff verbs that `keras.ops` lacks, one file a backend.

The backend is chosen once, by Keras. Every file defines the same functions:

- `run_step(model, step, *args)`: one training step as `keras.Model.train_step`.
- `value_and_gradient(fn, variables)`: the value of `fn()` and its gradient.
- `pullback(fn, variables)`: the value of `fn()` now, its gradient later.
- `value_and_input_gradient(fn, *inputs)`: the value of `fn(*inputs)` and its
  gradient with respect to the inputs, differentiable once more.
- `apply(optimizer, gradients, variables)`: one update, in place.
- `supports_attention(dtype)`: whether Keras' attention works in it on this device.
- `should_jit(model, steps)`: whether the backend's own compiler makes the model faster.

`devices.py` beside them is about several devices and machines.

`fn` may read any variable and must assign none.
"""

import importlib

import keras

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
apply = _verbs.apply
supports_attention = _verbs.supports_attention
should_jit = _verbs.should_jit
value_and_input_gradient = _verbs.value_and_input_gradient
