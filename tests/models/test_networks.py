"""Mate-G and Mate-D: shapes, sizes that come from the CLIP, and bad arguments."""

import keras
import numpy as np
import pytest
import serialization
import tiny
from keras.ops import convert_to_numpy

from galip_keras import MateD, MateG
from galip_keras.models.mate_g import block_sizes

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize(
    ("image_size", "grid_size", "sizes"),
    [
        (224, 7, [8, 16, 32, 64, 128, 224]),
        (224, 14, [14, 16, 32, 64, 128, 224]),
        (224, 16, [16, 16, 32, 64, 128, 224]),
        (256, 7, [8, 16, 32, 64, 128, 256]),
        (64, 4, [8, 16, 32, 64]),
        (8, 4, [8]),
    ],
)
def test_block_sizes(image_size, grid_size, sizes):
    assert block_sizes(image_size, grid_size) == sizes


@pytest.mark.parametrize("image_size", [8, 24, 32, 48])
def test_generator_makes_any_image_size(image_size):
    model = tiny.gan(image_size=image_size)
    data = tiny.batch(2)
    images = tiny.compiled(model, data)
    assert images.shape == (2, image_size, image_size, 3)
    assert keras.backend.standardize_dtype(images.dtype) == "float32"


def test_discriminator_gives_one_logit_per_image():
    model = tiny.gan()
    features = model.clip.extract_features(tiny.batch(3)["images"])
    text = model.clip.embed_text(tiny.batch(3)["token_ids"])
    assert model.discriminator(features, text).shape == (3, 1)


@pytest.mark.parametrize("grid_size", [2, 3, 4, 7, 9])
def test_matching_head_fits_any_grid(grid_size):
    discriminator = MateD((2, grid_size, grid_size, 8), 6, extractor_channels=4)
    features = np.ones((1, 2, grid_size, grid_size, 8), "float32")
    assert discriminator(features, np.ones((1, 6), "float32")).shape == (1, 1)


def test_matching_head_of_the_paper():
    discriminator = MateD((3, 7, 7, 768), 6)
    assert discriminator.head_conv_1.kernel.shape == (4, 4, 512 + 6, 128)
    assert discriminator.head_conv_2.kernel.shape == (4, 4, 128, 1)


def test_the_extracted_feature_is_never_wider_than_the_clip():
    assert MateD((2, 2, 2, 8), 6).extractor_channels == 8


def test_generator_without_prompts():
    clip = tiny.frozen_clip()
    data = np.ones((2, 8), "float32"), np.ones((2, 12), "float32")
    sizes = {"latent_dim": 8, "base_channels": 4, "bridge_channels": 8}
    generator = MateG(clip, prompt_layers=(), **sizes)
    assert generator(*data).shape == (2, 32, 32, 3)
    prompted = MateG(clip, prompt_layers=(1,), **sizes)
    prompts = prompted.count_params() - generator.count_params()
    assert prompts == (8 + 12 + 1) * 16


def test_images_depend_on_noise_and_text():
    model = tiny.gan()
    data = tiny.batch(2)
    images = convert_to_numpy(model(data))
    for key in ("noise", "token_ids"):
        other = dict(data)
        other[key] = data[key][::-1].copy()
        assert not np.allclose(convert_to_numpy(model(other)), images)


def test_config_round_trip():
    model = tiny.gan()
    for network in (model.generator, model.discriminator):
        serialization.round_trip(network)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 4}, "`image_size` must be at least 8"),
        ({"latent_dim": 0}, "`latent_dim` must be at least 1"),
        ({"base_channels": 0}, "`base_channels` must be at least 1"),
        ({"prompt_layers": (1, 3)}, "`prompt_layers` must be ascending block numbers"),
    ],
)
def test_impossible_generators_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MateG(tiny.frozen_clip(), **{"prompt_layers": (1,), **arguments})


def test_impossible_discriminators_are_refused():
    with pytest.raises(ValueError, match="2x2 patches"):
        MateD((3, 1, 1, 8), 6)
