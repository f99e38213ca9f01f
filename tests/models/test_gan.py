"""The training step through `fit`: reports, updates, saved and restored state."""

import keras
import numpy as np
import pytest
import serialization
import tiny
from keras.ops import convert_to_numpy
from tiny import values

from galip_keras.models.losses import energy_score, pair_up, range_penalty
from galip_keras.models.optimizers import adam
from galip_keras.models.precision import set_precision

pytestmark = pytest.mark.every_backend

LOSSES = {
    "d_real",
    "d_mismatch",
    "d_fake",
    "gradient_penalty",
    "g_adversarial",
    "similarity",
    "out_of_range",
}


def changed(before, variables):
    return [
        not np.array_equal(a, convert_to_numpy(v)) for a, v in zip(before, variables)
    ]


def compiled():
    model = tiny.gan()
    model.compile()
    return model


model = tiny.shared(compiled)


def test_fit_reports_the_losses_by_name(model, capsys):
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(set(logs))
    )
    history = model.fit(
        tiny.batch(8), batch_size=4, epochs=2, verbose=2, callbacks=[callback]
    )
    figures = LOSSES | {"d_gradient_norm", "g_gradient_norm"}
    assert set(history.history) == figures
    assert seen == [figures] * 4
    assert "gradient_penalty" in capsys.readouterr().out


def test_a_step_changes_both_networks_and_not_clip(model):
    generator = values(model.generator.trainable_variables)
    discriminator = values(model.discriminator.trainable_variables)
    clip = values(model.clip.weights)
    model.fit(tiny.batch(), batch_size=4, verbose=0)
    assert all(changed(discriminator, model.discriminator.trainable_variables))
    assert all(changed(generator, model.generator.trainable_variables))
    assert not any(changed(clip, model.clip.weights))


def test_losses_of_a_step_are_those_of_the_pure_functions(model):
    """The generator's losses come from the updated discriminator."""
    data = tiny.batch()
    text = model.clip.embed_text(data["token_ids"])
    real = model.clip.extract_features(data["images"])
    images = model.generator(data["noise"], text)
    fake, embedding = model.clip.extract_features_and_embed(images)
    _, d_terms = model.discriminator_loss(real, fake, text)
    expected = {k: float(v) for k, v in d_terms.items()}
    logs = model.fit(data, batch_size=4, shuffle=False, verbose=0).history
    excess = range_penalty(images)
    _, g_terms = model.generator_loss(fake, embedding, text, excess)
    expected |= {k: float(v) for k, v in g_terms.items()}
    for name, value in expected.items():
        assert logs[name][0] == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_range_weight_pulls_pixels_into_their_range(model):
    heavy = tiny.gan(range_weight=1e4)
    heavy.compile(adam(1e-4))
    excess = {}
    for weight, each in ((0.0, model), (1e4, heavy)):
        each.generator.to_rgb.bias.assign([1.5, -1.5, 0.0])
        each.optimizer.generator.learning_rate = 1e-2
        history = each.fit(tiny.batch(), batch_size=4, epochs=10, verbose=0).history
        excess[weight] = history["out_of_range"]
    assert excess[0.0][0] == pytest.approx(excess[1e4][0], rel=1e-4)
    assert excess[1e4][-1] < 0.5 * excess[0.0][-1]


def test_energy_weight_lowers_the_energy_score():
    data = tiny.batch(6)
    scores = {}
    for weight in (1e-6, 1e3):
        model = tiny.gan(energy_weight=weight)
        model.compile(adam(1e-3), **tiny.FEW_STEPS)
        text = model.clip.embed_text(data["token_ids"])
        _, real = model.clip.extract_features_and_embed(data["images"])
        images = model.generator(data["noise"], pair_up(text))
        _, fake = model.clip.extract_features_and_embed(images)
        history = model.fit(data, batch_size=6, shuffle=False, epochs=8, verbose=0)
        scores[weight] = history.history["energy_score"]
        expected = float(energy_score(fake, real))
        assert scores[weight][0] == pytest.approx(expected, rel=1e-3)
    assert scores[1e3][-1] < 0.9 * scores[1e-6][-1]


# Eager steps are slow on JAX. `test_run.py` checks the same on every backend.
@pytest.mark.backend("tensorflow", "torch")
def test_text_embeddings_replace_token_ids():
    data = tiny.batch()
    losses = []
    for embedded in (False, True):
        model = tiny.gan()
        model.compile(run_eagerly=True)
        if embedded:
            text = model.clip.embed_text(data.pop("token_ids"))
            data["text_embeddings"] = convert_to_numpy(text)
        losses.append(model.train_on_batch(data, return_dict=True))
    for name in LOSSES:
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-5, abs=1e-6)


@pytest.mark.backend("tensorflow", "torch")
def test_mismatched_captions_replace_the_next_ones():
    def step(**others):
        model = tiny.gan()
        model.compile(run_eagerly=True)
        return model.train_on_batch({**tiny.batch(), **others}, return_dict=True)

    token_ids = tiny.batch()["token_ids"]
    rolled = np.roll(token_ids, -1, axis=0)
    embedded = convert_to_numpy(tiny.gan().clip.embed_text(rolled))
    plain = step()
    assert step(mismatched_token_ids=rolled) == pytest.approx(plain, rel=1e-4)
    assert step(mismatched_embeddings=embedded) == pytest.approx(plain, rel=1e-4)
    matching = step(mismatched_token_ids=token_ids)
    assert matching["d_mismatch"] != pytest.approx(plain["d_mismatch"], abs=1e-4)
    assert matching["d_real"] == pytest.approx(plain["d_real"], abs=1e-4)


# Eager steps are slow on JAX.
@pytest.mark.backend("tensorflow", "torch")
def test_one_pass_through_generator_and_clip(monkeypatch):
    model = tiny.gan()
    model.compile(run_eagerly=True)
    calls = {"transform_bridge": 0, "extract_features_and_embed": 0}

    def count(name):
        original = getattr(type(model.clip), name)

        def wrapper(self, *args):
            calls[name] += 1
            return original(self, *args)

        monkeypatch.setattr(type(model.clip), name, wrapper)

    for name in calls:
        count(name)
    model.fit(tiny.batch(), batch_size=4, verbose=0)
    assert calls == {"transform_bridge": 1, "extract_features_and_embed": 1}


def test_noise_is_drawn_anew_each_step():
    model = tiny.gan()
    model.compile(**tiny.FEW_STEPS)
    data = tiny.batch(noise=False)
    before = convert_to_numpy(model.seed_generator.state).copy()
    model.fit(data, batch_size=4, verbose=0)
    after = convert_to_numpy(model.seed_generator.state).copy()
    model.fit(data, batch_size=4, verbose=0)
    assert not np.array_equal(before, after)
    assert not np.array_equal(after, convert_to_numpy(model.seed_generator.state))


def test_saved_weights_restore_both_optimizers(model, tmp_path):
    data = tiny.batch()
    model.fit(data, batch_size=4, epochs=2, verbose=0)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    restored = tiny.gan(seed=5)
    restored.compile(**tiny.FEW_STEPS)
    restored.load_weights(path)
    for ours, theirs in (
        (restored.trainable_variables, model.trainable_variables),
        (restored.optimizer.generator.variables, model.optimizer.generator.variables),
        (
            restored.optimizer.discriminator.variables,
            model.optimizer.discriminator.variables,
        ),
    ):
        assert len(ours) == len(theirs) > 0
        assert not any(changed(values(ours), theirs))
    assert int(convert_to_numpy(restored.optimizer.generator.iterations)) == 2
    # Training goes on alike.
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    first = model.fit(data, **fit).history
    second = restored.fit(data, **fit).history
    for name in LOSSES:
        assert second[name][0] == pytest.approx(first[name][0], rel=1e-3, abs=1e-4)


def test_saved_weights_leave_clip_out(model, tmp_path):
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    trained = sum(np.prod(v.shape) for v in model.trainable_variables)
    state = sum(np.prod(v.shape) for v in model.optimizer.variables)
    import h5py

    stored = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: stored.append((name, getattr(item, "size", 0)))
        )
    assert sum(size for _, size in stored) <= trained + state + 50
    assert not any("vision_encoder" in name for name, _ in stored)


def test_config_round_trip():
    serialization.round_trip(tiny.gan())


def two_steps(monkeypatch, **how):
    """How often the step is traced, and the weights that it ends in."""
    model = tiny.gan()
    model.compile(**how)
    traces = []
    step = model._train_step
    monkeypatch.setattr(
        model, "_train_step", lambda data: traces.append(0) or step(data)
    )
    model.fit(tiny.batch(8), batch_size=4, epochs=2, shuffle=False, verbose=0)
    return len(traces), values(model.trainable_variables)


@pytest.mark.slow
@pytest.mark.backend("tensorflow", "jax")
def test_compiled_step_is_traced_once_and_equals_the_eager_one(monkeypatch):
    traces, compiled = two_steps(monkeypatch, jit_compile=True)
    assert traces == 1
    if keras.backend.backend() == "jax":
        # test_agreement.py compares it with TensorFlow's eager step. JAX would compile
        # each operation of an eager step by itself, which takes longer.
        return
    traces, eager = two_steps(monkeypatch, run_eagerly=True)
    assert traces == 4
    for expected, actual in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_for_200_steps(precision):
    model = tiny.gan()
    inputs = {k: v for k, v in tiny.batch().items() if k != "images"}
    exact = model.predict(inputs, verbose=0)
    set_precision(model, precision)
    model.make_predict_function(force=True)
    half = model.predict(inputs, verbose=0)
    error = np.linalg.norm(half - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.02

    model.compile()
    history = model.fit(tiny.batch(40), batch_size=4, epochs=20, verbose=0).history
    for layer in (model.generator.to_rgb, model.discriminator.head_conv_1):
        assert layer.compute_dtype == precision.removeprefix("mixed_")
    # Gradient norms are left out: they are infinite when scaled gradients overflow.
    assert all(np.isfinite(history[name]).all() for name in LOSSES)
    assert all(np.isfinite(v).all() for v in values(model.trainable_variables))
    # A step whose scaled gradients overflow is skipped, which few may be.
    for optimizer in (model.optimizer.generator, model.optimizer.discriminator):
        assert 180 < int(optimizer.iterations) <= 200


def scaled():
    """A model whose discriminator's scaled gradients overflow in float16."""
    model = tiny.gan()
    set_precision(model, "mixed_float16")
    model.compile(**tiny.FEW_STEPS)
    model.optimizer.discriminator.dynamic_scale.assign(2.0**60)
    return model


overflowing = tiny.shared(scaled)


def test_overflow_skips_the_step_and_halves_the_scale(overflowing, tmp_path):
    model, optimizer = overflowing, overflowing.optimizer.discriminator
    before = values(model.discriminator.trainable_variables)
    model.fit(tiny.batch(), batch_size=4, verbose=0)
    assert not any(changed(before, model.discriminator.trainable_variables))
    assert float(optimizer.dynamic_scale) == 2.0**59

    model.save_weights(tmp_path / "model.weights.h5")
    restored = tiny.gan(seed=1)
    set_precision(restored, "mixed_float16")
    restored.compile()
    restored.load_weights(tmp_path / "model.weights.h5")
    assert float(restored.optimizer.discriminator.dynamic_scale) == 2.0**59


def test_evaluation_and_prediction_do_not_train(model):
    before = values(model.trainable_variables)
    data = tiny.batch()
    images = model.predict(
        {k: data[k] for k in ("token_ids", "noise")}, batch_size=2, verbose=0
    )
    assert images.shape == (4, 32, 32, 3)
    assert not any(changed(before, model.trainable_variables))


def test_steps_that_loss_scaling_skips_count(overflowing):
    model, optimizer = overflowing, overflowing.optimizer.discriminator
    before = values(model.discriminator.trainable_variables)
    history = model.fit(tiny.batch(), batch_size=4, verbose=0).history
    assert not np.isfinite(history["d_gradient_norm"][0])
    assert not any(changed(before, model.discriminator.trainable_variables))
    assert int(optimizer.inner_optimizer.iterations) == 0
    assert int(model.step) == 1
    optimizer.dynamic_scale.assign(2.0**10)
    model.fit(tiny.batch(), batch_size=4, verbose=0)
    assert int(optimizer.inner_optimizer.iterations) == 1
    assert int(model.step) == 2
