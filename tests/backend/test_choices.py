"""The forms of a computation: which is chosen where, and that all give one image."""

import keras
import numpy as np
import pytest
import tiny
from keras import ops

from galip_keras import backend
from galip_keras.backend import choices
from galip_keras.backend.choices import DIRECT, PRODUCTS, TRANSPOSED, Place
from galip_keras.models.precision import set_precision

pytestmark = pytest.mark.every_backend

LARGE, SMALL = 2e7, 1e6


@pytest.mark.parametrize(
    ("place", "dtype", "large", "small"),
    [
        (Place("jax", True, True), "bfloat16", True, True),
        (Place("jax", False, True), "float32", True, True),
        (Place("tensorflow", False, True), "bfloat16", True, True),
        (Place("tensorflow", True, True), "bfloat16", False, False),
        (Place("tensorflow", True, False), "bfloat16", True, False),
        (Place("tensorflow", True, True), "float32", True, False),
        (Place("tensorflow", True, True), "float16", True, False),
        (Place("torch", True, False), "float32", False, False),
        (Place("torch", False, True), "bfloat16", False, False),
    ],
)
def test_what_is_compiled(place, dtype, large, small):
    assert choices.compiles(place, dtype, LARGE) == large
    assert choices.compiles(place, dtype, SMALL) == small
    is_jax = place.backend == "jax"
    assert choices.compiles(place, dtype, LARGE, is_varied=True) == is_jax


@pytest.mark.parametrize(
    ("old_size", "size", "compiled", "plain"),
    [
        (8, 16, PRODUCTS, TRANSPOSED),
        (128, 224, PRODUCTS, DIRECT),
        # Few copies save nothing.
        (7, 8, DIRECT, DIRECT),
    ],
)
def test_forms(old_size, size, compiled, plain):
    assert choices.resize_form(True, old_size, size) == compiled
    assert choices.resize_form(False, old_size, size) == plain


def test_only_jax_compiles_what_does_not_say_so():
    is_jax = keras.config.backend() == "jax"
    assert backend.resize_form(8, 16) == (PRODUCTS if is_jax else TRANSPOSED)
    with backend.compiled(True):
        assert backend.resize_form(8, 16) == PRODUCTS
        with backend.compiled(False):
            assert backend.resize_form(8, 16) == TRANSPOSED


def test_bfloat16_is_fast_where_its_units_are_used():
    assert choices.is_bfloat16_fast(Place("torch", True, True))
    assert choices.is_bfloat16_fast(Place("jax", False, True))
    assert not choices.is_bfloat16_fast(Place("tensorflow", True, False))
    # XLA does not use them on a CPU.
    assert not choices.is_bfloat16_fast(Place("jax", True, True))


def draw(model, form, compiled, monkeypatch):
    monkeypatch.setattr(
        backend,
        "resize_form",
        lambda old, size: form if size == 2 * old else DIRECT,
    )
    model.jit_compile = compiled
    model.generate_function = None
    sizes = model.latent_dim, model.backbone.clip.embedding_dim
    latents, texts = (ops.eye(2, size, dtype="float32") for size in sizes)
    images = model.make_generate_function()(latents, texts)
    return ops.convert_to_numpy(images)


def test_every_choice_gives_the_same_images(monkeypatch):
    model = tiny.text_to_image(spread=0.1)
    can_compile = keras.config.backend() != "torch"
    images = {
        (form, compiled): draw(model, form, compiled, monkeypatch)
        for form in (DIRECT, PRODUCTS, TRANSPOSED)
        for compiled in {False, can_compile}
    }
    expected = images.pop((DIRECT, False))
    scale = np.abs(expected).max()
    for found in images.values():
        np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
    set_precision(model.backbone, "mixed_bfloat16")
    for form in (DIRECT, PRODUCTS, TRANSPOSED):
        found = draw(model, form, False, monkeypatch)
        # Not the same number everywhere, or it was float32 again.
        assert 0 < np.abs(found - expected).max() < 0.1 * scale
