"""Averages, augmentation, step counts and gradient norms of the training step."""

import keras
import numpy as np
import pytest
import serialization
import tiny
from keras.ops import convert_to_numpy
from tiny import values

from galip_keras import GALIP
from galip_keras.models.augmentation import KINDS, NUM_RANDOM
from galip_keras.models.optimizers import adam
from galip_keras.models.precision import set_precision

pytestmark = pytest.mark.every_backend

FIT = {"batch_size": 4, "shuffle": False, "verbose": 0}


def own(generator):
    """Return the values of a generator's variables, without CLIP's."""
    frozen = {id(v) for v in generator.clip.variables}
    return values(v for v in generator.variables if id(v) not in frozen)


def same(left, right):
    assert len(left) == len(right) > 0
    return [np.array_equal(a, b) for a, b in zip(left, right)]


def averaging():
    model = tiny.gan(average=True)
    # Steps large enough to tell from rounding.
    model.compile(generator_optimizer=adam(0.01), average_half_life=2.5)
    return model


model = tiny.shared(averaging)


def test_average_is_the_formula_and_clip_untouched(model):
    clip = values(model.clip.variables)
    expected = own(model.averaged_generator)
    # On the ramp, around its end, and at the full half-life.
    for step in (1, 2, 30, 49, 50, 51, 500):
        before = own(model.generator)
        model.step.assign(step - 1)
        model.fit(tiny.batch(), **FIT)
        assert int(model.step) == step
        weights = own(model.generator)
        assert not any(same(before, weights))
        momentum = 0.5 ** (1 / min(0.05 * step, 2.5))
        expected = [
            momentum * average + (1 - momentum) * weight
            for average, weight in zip(expected, weights)
        ]
        for average, by_hand in zip(own(model.averaged_generator), expected):
            np.testing.assert_allclose(average, by_hand, rtol=1e-4, atol=1e-6)
    assert all(same(clip, values(model.clip.variables)))


def test_average_begins_as_the_generator_on_the_same_clip():
    plain = tiny.gan()
    model = GALIP(plain.generator, plain.discriminator, average=True)
    average = model.averaged_generator
    assert average.clip is model.clip
    assert all(same(own(average), own(model.generator)))
    assert len(model.trainable_variables) == len(plain.trainable_variables)
    assert not average.trainable_variables
    # A preset's generator is an average itself when training goes on from it.
    again = GALIP(average, plain.discriminator, average=True).averaged_generator
    assert again.name == average.name != plain.generator.name
    # It has its own memory.
    model.generator.trainable_variables[0].assign_add(
        np.ones(model.generator.trainable_variables[0].shape)
    )
    assert not all(same(own(average), own(model.generator)))


def test_saved_weights_restore_average_and_step(model, tmp_path):
    model.step.assign(60)
    model.fit(tiny.batch(8), **FIT)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    saved = own(model.averaged_generator)
    assert not any(same(saved, own(model.generator)))
    restored = averaging()
    assert not all(same(own(restored.averaged_generator), saved))
    restored.load_weights(path)
    assert all(same(own(restored.averaged_generator), saved))
    assert int(restored.step) == 62


def test_config_keeps_average_and_augmentation():
    model = tiny.gan(average=True, augmentation=["cutout"])
    copy = serialization.round_trip(model)
    assert copy.augmentation == ("cutout",)
    assert copy.averaged_generator.clip is copy.clip
    assert serialization.round_trip(tiny.gan()).averaged_generator is None


def test_augmentation_trains_with_numbers_drawn_anew():
    model = tiny.gan(augmentation=KINDS)
    model.compile(**tiny.FEW_STEPS)
    before = values(model.trainable_variables)
    seeds = []
    for _ in range(3):
        history = model.fit(tiny.batch(), **FIT).history
        assert all(np.isfinite(v).all() for v in history.values())
        seeds.append(tuple(convert_to_numpy(model.seed_generator.state)))
    assert len(set(seeds)) == 3
    assert not any(same(before, values(model.trainable_variables)))


def test_real_and_generated_images_have_their_own_numbers():
    model = tiny.gan(augmentation=["color", "translation"])
    # The weights hardly change, so that losses can be compared.
    model.compile(adam(1e-12), adam(1e-12), **tiny.FEW_STEPS)
    data = tiny.batch()
    text = model.clip.embed_text(data["token_ids"])
    _, terms = model.discriminator_loss(
        model.clip.extract_features(data["images"]),
        model.clip.extract_features(model.generator(data["noise"], text)),
        text,
    )
    plain = {
        name: float(convert_to_numpy(terms[name])) for name in ("d_real", "d_fake")
    }
    # One half leaves colours and positions unchanged.
    numbers = np.full((4, 2, NUM_RANDOM), 0.5, "float32")
    for changed in ((), ("d_real",), ("d_fake",)):
        data["augmentation"] = numbers.copy()
        for name in changed:
            data["augmentation"][:, ["d_real", "d_fake"].index(name)] = 0.1
        losses = model.fit(data, **FIT).history
        for name, value in plain.items():
            is_same = losses[name][0] == pytest.approx(value, rel=1e-3, abs=1e-4)
            assert is_same == (name not in changed)


@pytest.mark.parametrize("kinds", [["blur"], ["color", "blur"]])
def test_unknown_augmentation_is_refused(kinds):
    with pytest.raises(ValueError, match=r"color, translation, cutout\. .*: blur$"):
        tiny.gan(augmentation=kinds)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_gradient_norms_are_those_of_the_step(precision):
    model = tiny.gan()
    set_precision(model, precision)
    # Weights change by the gradient itself, times a rate.
    rate = 2.0**-8
    optimizers = keras.optimizers.SGD(rate), keras.optimizers.SGD(rate)
    model.compile(*optimizers, **tiny.FEW_STEPS)
    networks = {"d": model.discriminator, "g": model.generator}
    before = {k: values(n.trainable_variables) for k, n in networks.items()}
    history = model.fit(tiny.batch(), **FIT).history
    for key, network in networks.items():
        after = values(network.trainable_variables)
        squares = [np.sum((a - b) ** 2.0) for a, b in zip(after, before[key])]
        (norm,) = history[f"{key}_gradient_norm"]
        assert 0 < norm < np.inf
        assert norm == pytest.approx(np.sqrt(sum(squares)) / rate, rel=1e-3)
