"""The few autodiff verbs that `keras.ops` lacks, one file a backend.

The backend is chosen once, by Keras. Every file defines the same four functions:

- `run_step(model, step, *args)`: one training step as `keras.Model.train_step`.
- `value_and_gradient(fn, variables)`: the value of `fn()` and its gradient.
- `pullback(fn, variables)`: the value of `fn()` now, its gradient later.
- `value_and_input_gradient(fn, *inputs)`: the value of `fn(*inputs)` and its
  gradient with respect to the inputs, differentiable once more.

`fn` may read any variable and must assign none.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from galip_keras.backend.tensorflow import pullback as pullback
    from galip_keras.backend.tensorflow import run_step as run_step
    from galip_keras.backend.tensorflow import value_and_gradient as value_and_gradient
    from galip_keras.backend.tensorflow import (
        value_and_input_gradient as value_and_input_gradient,
    )
elif keras.backend.backend() == "jax":
    from galip_keras.backend.jax import pullback as pullback
    from galip_keras.backend.jax import run_step as run_step
    from galip_keras.backend.jax import value_and_gradient as value_and_gradient
    from galip_keras.backend.jax import (
        value_and_input_gradient as value_and_input_gradient,
    )
elif keras.backend.backend() == "torch":
    from galip_keras.backend.torch import pullback as pullback
    from galip_keras.backend.torch import run_step as run_step
    from galip_keras.backend.torch import value_and_gradient as value_and_gradient
    from galip_keras.backend.torch import (
        value_and_input_gradient as value_and_input_gradient,
    )
else:
    raise ValueError(
        "GALIP runs on the tensorflow, jax and torch backends; "
        f"KERAS_BACKEND is {keras.backend.backend()!r}."
    )
