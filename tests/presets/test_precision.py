"""The precision that a model is loaded in."""

import numpy as np
import pytest

from galip_keras import backend
from galip_keras.models.fidelity import psnr
from galip_keras.presets import loading
from galip_keras.presets.loading import load_model
from galip_keras.sampling.sampler import load_keras

pytestmark = pytest.mark.every_backend

PROMPTS = ["a red bird", "a small blue bird with yellow wings", "a black crow"]


@pytest.fixture(scope="module")
def exact():
    return load_model("toybirds")


def stores(model):
    return model.backbone.generator.to_rgb.kernel.dtype


def test_bfloat16_stays_within_40_decibels(exact):
    model = load_model("toybirds", precision="bfloat16")
    assert model.precision == stores(model) == "bfloat16"
    found, expected = (x.generate(PROMPTS, seed=7) for x in (model, exact))
    assert all(psnr(*pair) >= 40 for pair in zip(found, expected))
    # Else it would not be bfloat16.
    assert np.abs(found.astype(int) - expected).max() > 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_text_encoder_stays_exact(exact, precision):
    model = exact.in_precision(precision)
    found, expected = (x.embed(PROMPTS) for x in (model, exact))
    np.testing.assert_array_equal(found, expected)
    assert {x.dtype for x in model.backbone.clip.text_variables} == {"float32"}
    assert exact.precision == stores(exact) == "float32"


@pytest.mark.parametrize(
    ("faster", "is_faithful", "chosen"),
    [
        ("bfloat16", True, "bfloat16"),
        ("bfloat16", False, "float32"),
        ("float32", True, "float32"),
    ],
)
def test_auto(faster, is_faithful, chosen, monkeypatch):
    monkeypatch.setattr(backend, "fast_precision", lambda: faster)
    monkeypatch.setattr(loading, "is_faithful", lambda model, exact: is_faithful)
    assert load_keras("galip_tiny", "auto").precision == chosen
    # What is asked for is not doubted.
    assert load_keras("galip_tiny", "bfloat16").precision == "bfloat16"
    assert load_keras("galip_tiny").precision == "float32"


def test_an_unknown_precision_is_refused(exact):
    with pytest.raises(ValueError, match="`precision` must be one of float32, bf"):
        load_model("toybirds", precision="int4")
    # There is nothing to choose by.
    with pytest.raises(ValueError, match="Received: 'auto'"):
        exact.in_precision("auto")
