"""A generator whose weights are a moving average of another generator's."""

from collections.abc import Iterable

import keras
from keras import ops

from galip_keras.backend import Tensor
from galip_keras.models.mate_g import MateG

# The half-life is at most this part of the steps so far, which soon forgets the first.
_RAMP = 0.05


def clone_frozen(generator: MateG) -> MateG:
    """Copy a generator: same weights, same CLIP, not trainable."""
    # That of a preset is an average itself.
    name = f"averaged_{generator.name.removeprefix('averaged_')}"
    config = {**generator.get_config(), "clip": generator.clip, "name": name}
    clone = type(generator)(**config)
    copy_weights(_pairs(clone, generator))
    clone.trainable = False
    return clone


def copy_weights(pairs: Iterable[tuple[keras.Variable, keras.Variable]]) -> None:
    """Give the first variable of each pair the value of the second one."""
    for variable, original in pairs:
        # Through NumPy: on JAX the two would share their memory.
        variable.assign(ops.convert_to_numpy(original))


def update_average(
    averaged: MateG, generator: MateG, step: Tensor, half_life: float
) -> None:
    """Move the weights of a frozen clone towards those of the generator.

    Args:
        averaged: a `galip_keras.MateG` that `clone_frozen` returned.
        generator: a `galip_keras.MateG`.
        step: int scalar. Training steps so far, this one included.
        half_life: float. Steps after which weights count half.
    """
    half_life = ops.minimum(_RAMP * ops.cast(step, "float32"), half_life)
    momentum = ops.power(0.5, 1.0 / half_life)
    for average, weight in _pairs(averaged, generator):
        average.assign(weight + momentum * (average - weight))


def _pairs(generator, other):
    """The variables of two generators on the same CLIP, without CLIP's."""
    frozen = {id(variable) for variable in generator.clip.variables}
    pairs = zip(generator.variables, other.variables)
    return [pair for pair in pairs if id(pair[0]) not in frozen]
