"""The frozen CLIP: its outputs, and bad arguments."""

import numpy as np
import pytest
import serialization
import tiny
from keras import ops
from keras.ops import convert_to_numpy

from galip_keras import FrozenCLIP
from galip_keras.models.clip import load_clip
from galip_keras.models.random_clip import byte_tokenizer, random_clip

pytestmark = pytest.mark.every_backend


@pytest.fixture(scope="module")
def clip():
    return tiny.frozen_clip()


def images(size=32, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, size, size, 3)).astype("float32")


def test_sizes_come_from_the_clip(clip):
    assert clip.image_size == 32
    assert clip.grid_size == 4
    assert clip.hidden_dim == 16
    assert clip.embedding_dim == 12
    features, embeddings = clip.extract_features_and_embed(images())
    assert features.shape == (2, 2, 4, 4, 16)
    assert embeddings.shape == (2, 12)


def test_embedding_is_the_one_of_the_backbone(clip):
    """Compare with keras-hub's own path, on pixels that are normalized here."""
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = ((images() * 0.25 + 0.75 - mean) / std).astype("float32")
    expected = clip.clip.get_vision_embeddings(pixels)
    _, embeddings = clip.extract_features_and_embed(images())
    np.testing.assert_allclose(
        convert_to_numpy(embeddings), convert_to_numpy(expected), atol=1e-5
    )


def test_features_are_block_outputs_without_the_class_token(clip):
    encoder = clip.clip.vision_encoder
    x = encoder.pre_layer_norm(encoder.embedding(clip._normalize(images())))
    x = encoder.encoder_layers[0](x)
    expected = convert_to_numpy(x)[:, 1:].reshape(2, 4, 4, 16)
    features = convert_to_numpy(clip.extract_features(images()))
    np.testing.assert_allclose(features[:, 0], expected, atol=1e-5)


def test_the_embedding_of_the_patches_can_be_a_feature(clip):
    both = FrozenCLIP(clip.clip, feature_layers=(-1, 0))
    embedding = clip.clip.vision_encoder.embedding(clip._normalize(images()))
    features = convert_to_numpy(both.extract_features(images()))
    assert features.shape == (2, 2, 4, 4, 16)
    np.testing.assert_allclose(
        features[:, 0].reshape(2, 16, 16),
        convert_to_numpy(embedding)[:, 1:],
        atol=1e-5,
    )
    first = convert_to_numpy(clip.extract_features(images()))[:, 0]
    np.testing.assert_allclose(features[:, 1], first, atol=1e-5)


def test_standard_scaling_differs_from_the_reference():
    standard = tiny.frozen_clip(pixel_scaling="standard")
    reference = tiny.frozen_clip()
    # 0.5 x + 0.5 of 0.5 x + 0.5 is 0.25 x + 0.75.
    ours = convert_to_numpy(reference.extract_features(images()))
    again = convert_to_numpy(standard.extract_features(images() / 2 + 0.5))
    np.testing.assert_allclose(ours, again, atol=1e-4)


def test_other_sizes_are_resized(clip):
    small = images(16)
    large = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(
        convert_to_numpy(clip.extract_features(small)),
        convert_to_numpy(clip.extract_features(large)),
        atol=1e-5,
    )


def test_prompts_act_in_their_block_and_are_dropped(clip):
    bridge = ops.convert_to_tensor(np.ones((2, 4, 4, 16), "float32"))
    prompts = np.random.default_rng(0).standard_normal((2, 2, 16)).astype("float32")
    out = convert_to_numpy(clip.transform_bridge(bridge, prompts, (0, 2)))
    assert out.shape == (2, 4, 4, 16)
    changed = prompts.copy()
    changed[0, 1] *= -1
    other = convert_to_numpy(clip.transform_bridge(bridge, changed, (0, 2)))
    assert not np.allclose(out[0], other[0])
    np.testing.assert_allclose(out[1], other[1], atol=1e-6)


def test_positions_count():
    """keras-hub creates the position ids as zeros, which hides the positions."""
    clip = tiny.frozen_clip()
    features = convert_to_numpy(clip.extract_features(np.zeros((1, 32, 32, 3))))
    assert not np.allclose(features[0, 0, 0, 0], features[0, 0, 0, 1])


def test_it_is_frozen(clip):
    assert clip.weights
    assert not clip.trainable_weights


def test_random_clip_is_the_same_every_time():
    first, _ = random_clip(**tiny.CLIP)
    second, _ = random_clip(**tiny.CLIP)
    other, _ = random_clip(**tiny.CLIP, seed=1)
    for a, b in zip(first.weights, second.weights):
        np.testing.assert_array_equal(convert_to_numpy(a), convert_to_numpy(b))
    kernels = [c.vision_projection.kernel for c in (first, other)]
    assert not np.allclose(*map(convert_to_numpy, kernels))


def test_config_round_trip(clip):
    assert serialization.round_trip(clip).feature_layers == (0, 2)


@pytest.mark.parametrize("layers", [(1, 4, 8), (2, 0), (0, 0), (-2,)])
def test_impossible_feature_layers_are_refused(clip, layers):
    with pytest.raises(ValueError, match="block numbers from -1 to 2"):
        FrozenCLIP(clip.clip, feature_layers=layers)


def test_unknown_pixel_scaling_is_refused(clip):
    with pytest.raises(ValueError, match="pixel_scaling"):
        FrozenCLIP(clip.clip, feature_layers=(0,), pixel_scaling="imagenet")


def test_byte_tokenizer_covers_any_text():
    text = "an owl's nest, 12°: 猫🐦"
    tokenizer = byte_tokenizer()
    assert len(tokenizer(text)) > 10
    assert "owl" in str(tokenizer.detokenize(tokenizer(text)))


def test_a_clip_that_cannot_be_loaded_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="as `clip`") as caught:
        load_clip(str(tmp_path))
    assert "\n" not in str(caught.value)
