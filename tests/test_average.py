"""What a training step does besides: average, augment, count and report norms."""

import keras
import numpy as np
import pytest
import tiny
from keras.ops import convert_to_numpy

from galip_keras import GALIP
from galip_keras.augmentation import KINDS, NUM_RANDOM
from galip_keras.gan import adam
from galip_keras.training import set_precision

FIT = {"batch_size": 4, "shuffle": False, "verbose": 0}
NORMS = {"d_gradient_norm", "g_gradient_norm"}


def own(network):
    """The values of a network's variables by path, without those of CLIP."""
    frozen = {id(v) for v in network.clip.variables}
    return [
        convert_to_numpy(v).copy() for v in network.variables if id(v) not in frozen
    ]


def values(variables):
    return [convert_to_numpy(v).copy() for v in variables]


def same(left, right):
    assert len(left) == len(right) > 0
    return [np.array_equal(a, b) for a, b in zip(left, right)]


def averaging(**kwargs):
    model = tiny.gan(average=True)
    # Steps that can be told from rounding.
    model.compile(generator_optimizer=adam(0.01), **kwargs)
    return model


@pytest.mark.parametrize(
    ("start", "half_life"),
    [
        # Short of memory at first, a twentieth of the steps later on.
        (0, 1000),
        (39, 1000),
        # Never more than it is given.
        (39, 1),
        # From the twentieth to the half-life between two of the steps.
        (57, 2.95),
    ],
)
def test_average_is_the_formula(start, half_life):
    model = averaging(average_half_life=half_life)
    model.step.assign(start)
    expected = own(model.averaged_generator)
    for step in (start + 1, start + 2, start + 3):
        before = own(model.generator)
        model.fit(tiny.batch(), **FIT)
        weights = own(model.generator)
        assert not any(same(before, weights))
        momentum = 0.5 ** (1 / min(0.05 * step, half_life))
        expected = [
            momentum * average + (1 - momentum) * weight
            for average, weight in zip(expected, weights)
        ]
    for average, by_hand in zip(own(model.averaged_generator), expected):
        np.testing.assert_allclose(average, by_hand, rtol=1e-4, atol=1e-6)


def test_average_begins_as_the_generator_and_shares_its_clip():
    model = tiny.gan()
    model = GALIP(model.generator, model.discriminator, average=True)
    model.compile()
    assert model.averaged_generator.clip is model.clip
    assert all(same(own(model.averaged_generator), own(model.generator)))
    trained = {id(v) for v in model.trainable_variables}
    assert not trained & {id(v) for v in model.averaged_generator.variables}

    clip = values(model.clip.variables)
    model.fit(tiny.batch(), **FIT)
    assert all(same(clip, values(model.clip.variables)))
    data = tiny.batch()
    text = model.clip.embed_text(data["token_ids"])
    images = convert_to_numpy(model.averaged_generator(data["noise"], text))
    # After the first step nearly all of its weight is on that step.
    np.testing.assert_allclose(
        images, convert_to_numpy(model.generator(data["noise"], text)), atol=1e-3
    )


def test_training_is_the_same_with_and_without_average():
    results = []
    for average in (False, True):
        model = tiny.gan(average=average)
        model.compile()
        model.fit(tiny.batch(8), **FIT)
        results.append(values(model.trainable_variables))
    for plain, averaged in zip(*results):
        np.testing.assert_allclose(averaged, plain, rtol=1e-4, atol=1e-5)


def test_saved_weights_restore_average_and_step(tmp_path):
    model = averaging()
    model.step.assign(60)
    model.fit(tiny.batch(8), **FIT)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    restored = averaging()
    assert not all(
        same(own(restored.averaged_generator), own(model.averaged_generator))
    )
    restored.load_weights(path)
    assert all(same(own(restored.averaged_generator), own(model.averaged_generator)))
    assert int(restored.step) == 62
    # It is no copy of the generator.
    assert not any(same(own(restored.averaged_generator), own(restored.generator)))


def test_config_keeps_average_and_augmentation():
    model = tiny.gan(average=True, augmentation=["cutout"])
    copy = GALIP.from_config(model.get_config())
    assert copy.augmentation == ("cutout",)
    assert copy.averaged_generator.clip is copy.clip
    assert len(copy.variables) == len(model.variables)
    assert GALIP.from_config(tiny.gan().get_config()).averaged_generator is None


def test_augmentation_trains_with_numbers_drawn_anew():
    model = tiny.gan(augmentation=KINDS)
    model.compile()
    before = values(model.trainable_variables)
    seeds = [convert_to_numpy(model.seed_generator.state).copy()]
    for _ in range(2):
        history = model.fit(tiny.batch(), **FIT).history
        assert all(np.isfinite(v).all() for v in history.values())
        seeds.append(convert_to_numpy(model.seed_generator.state).copy())
    assert not any(same(before, values(model.trainable_variables)))
    assert not any(same(seeds, seeds[1:] + seeds[:1]))


def first_losses(augmentation=(), numbers=None):
    model = tiny.gan(augmentation=augmentation)
    model.compile()
    data = tiny.batch()
    if numbers is not None:
        data["augmentation"] = numbers.astype("float32")
    return {k: v[0] for k, v in model.fit(data, **FIT).history.items()}


def test_real_and_generated_pictures_have_their_own_numbers():
    # Halves leave colours and places as they are.
    halves = np.full((4, 2, NUM_RANDOM), 0.5)
    kinds = ("color", "translation")
    plain = first_losses()
    assert first_losses(kinds, halves) == pytest.approx(plain, rel=1e-3, abs=1e-4)
    for i, name, other in ((0, "d_real", "d_fake"), (1, "d_fake", "d_real")):
        numbers = halves.copy()
        numbers[:, i] = 0.1
        changed = first_losses(kinds, numbers)
        assert changed[other] == pytest.approx(plain[other], rel=1e-3, abs=1e-4)
        assert changed[name] != pytest.approx(plain[name], rel=1e-2)


@pytest.mark.parametrize("kinds", [["blur"], ["color", "blur"]])
def test_unknown_augmentation_is_refused(kinds):
    with pytest.raises(ValueError, match=r"color, translation, cutout\. .*: blur$"):
        tiny.gan(augmentation=kinds)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_gradient_norms_are_those_of_the_step(precision):
    model = tiny.gan()
    set_precision(model, precision)
    # Weights change by the gradient itself.
    model.compile(keras.optimizers.SGD(1.0), keras.optimizers.SGD(1.0))
    networks = {"d": model.discriminator, "g": model.generator}
    before = {k: values(n.trainable_variables) for k, n in networks.items()}
    history = model.fit(tiny.batch(), **FIT).history
    assert set(history) >= NORMS
    for key, network in networks.items():
        after = values(network.trainable_variables)
        squares = [np.sum((a - b) ** 2.0) for a, b in zip(after, before[key])]
        norm = history[f"{key}_gradient_norm"][0]
        assert 0 < norm < np.inf
        assert norm == pytest.approx(np.sqrt(sum(squares)), rel=1e-3)


def test_gradient_norms_are_means_over_the_steps():
    seen = []
    model = tiny.gan()
    model.compile(adam(1e-12), adam(1e-12))
    halves = [{k: v[i : i + 4] for k, v in tiny.batch(8).items()} for i in (0, 4)]
    for half in halves:
        seen.append(model.fit(half, **FIT).history)
    both = model.fit(tiny.batch(8), **FIT).history
    for name in NORMS:
        one, two = (history[name][0] for history in seen)
        assert one != pytest.approx(two, rel=1e-2)
        assert both[name][0] == pytest.approx((one + two) / 2, rel=1e-3)


def test_steps_that_loss_scaling_skips_count():
    model = tiny.gan(average=True)
    set_precision(model, "mixed_float16")
    model.compile()
    optimizer = model.optimizer.discriminator
    optimizer.dynamic_scale.assign(2.0**60)
    before = values(model.discriminator.trainable_variables)
    model.fit(tiny.batch(), **FIT)
    assert all(same(before, values(model.discriminator.trainable_variables)))
    assert int(optimizer.inner_optimizer.iterations) == 0
    assert int(model.step) == 1
    model.fit(tiny.batch(8), **FIT)
    assert int(model.step) == 3
