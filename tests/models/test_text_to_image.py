"""The keras-hub task: presets, noise, and images from prompts."""

import pathlib
import random

import keras
import keras_hub
import numpy as np
import pytest
from keras.ops import convert_to_numpy

from galip_keras import GALIPBackbone, GALIPTextToImage, noise
from galip_keras.models.architectures import preset_folder
from galip_keras.models.text_to_image import build
from galip_keras.sampling.sampler import load_any, sample

pytestmark = pytest.mark.every_backend

PROMPTS = ["a red bird", "an owl's nest, 12° 猫🐦", ""]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return GALIPTextToImage.from_preset("galip_tiny")


def test_noise_of_a_seed_stands_alone():
    together = np.asarray(noise([5, 2**40, 7], 16))
    assert together.shape == (3, 16)
    np.testing.assert_array_equal(together[2], np.asarray(noise([7], 16))[0])
    assert len(np.unique(together)) == together.size


def test_noise_is_tensorflow_s_philox():
    import tensorflow as tf

    expected = tf.random.stateless_normal([100], seed=[42, 0], alg="philox")
    np.testing.assert_array_equal(noise([42], 100)[0], expected)


def test_noise_is_standard_normal():
    numbers = np.asarray(noise(range(200), 100))
    assert abs(numbers.mean()) < 0.03
    assert numbers.std() == pytest.approx(1, abs=0.02)


def test_generate_gives_an_image_or_a_batch(model):
    one = model.generate(PROMPTS[0], seed=0)
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert model.generate(PROMPTS, seed=0).shape == (3, 64, 64, 3)


@pytest.mark.parametrize(
    "prompts",
    [
        ("an owl", "a bird"),
        [b"an owl", np.str_("a bird")],
        np.array(["an owl", "a bird"]),
        {"prompts": ["an owl", "a bird"]},
    ],
    ids=["tuple", "bytes", "array", "dict"],
)
def test_prompts_of_any_kind(model, prompts):
    expected = model.generate(["an owl", "a bird"], seed=0)
    np.testing.assert_array_equal(model.generate(prompts, seed=0), expected)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_prompts_in_tensors_and_datasets(model, batch_size):
    import tensorflow as tf

    texts = tf.constant(["an owl", "a bird"])
    dataset = tf.data.Dataset.from_tensor_slices(texts)
    dataset = dataset.batch(batch_size) if batch_size else dataset
    expected = model.generate(["an owl", "a bird"], seed=0)
    for prompts in (texts, list(texts), dataset):
        np.testing.assert_array_equal(model.generate(prompts, seed=0), expected)
    one = model.generate(texts[0], seed=0)
    np.testing.assert_array_equal(one, model.generate("an owl", seed=0))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "there are no prompts"),
        (np.zeros(0), "there are no prompts"),
        (["a bird", None], "prompts are strings, not None"),
        ([float("nan")], "prompts are strings, not nan"),
        (3, "prompts are strings, not 3"),
        ([["a", "b"]], r"prompts are strings, not \['a', 'b'\]"),
        ({"prompts": ["a"], "negative_prompts": ["b"]}, "not negative_prompts"),
        ({}, "no `prompts`"),
    ],
)
def test_what_is_no_prompt_is_one_line(model, inputs, message):
    with pytest.raises(ValueError, match=message) as error:
        model.generate(inputs)
    assert "\n" not in str(error.value)


def test_quantizing_is_refused(model):
    for each in (model, model.backbone):
        with pytest.raises(NotImplementedError, match="when it is exported"):
            each.quantize("int8")


@pytest.mark.parametrize(
    ("dtype", "computes", "stores"),
    [
        ("bfloat16", "bfloat16", "bfloat16"),
        ("mixed_bfloat16", "bfloat16", "float32"),
        (keras.DTypePolicy("mixed_float16"), "float16", "float32"),
    ],
    ids=str,
)
def test_a_dtype_reaches_the_networks_and_is_the_loader_s(
    dtype, computes, stores, tmp_path
):
    exact = GALIPTextToImage.from_preset("toybirds").generate("an owl", seed=0)
    model = GALIPTextToImage.from_preset("toybirds", dtype=dtype)
    generator = model.backbone.generator
    for layer in (generator.to_rgb, generator.clip):
        assert layer.compute_dtype == computes
    assert generator.to_rgb.kernel.dtype == stores
    image = model.generate("an owl", seed=0)
    difference = np.abs(image.astype(int) - exact)
    assert 0 < difference.mean() < 3
    model.save_to_preset(str(tmp_path))
    again = keras_hub.models.TextToImage.from_preset(str(tmp_path))
    assert again.backbone.generator.to_rgb.compute_dtype == "float32"
    difference = np.abs(again.generate("an owl", seed=0).astype(int) - exact)
    assert difference.mean() < (3 if stores == "bfloat16" else 0.01)


def test_the_dtype_of_keras_is_the_default(tmp_path):
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = GALIPTextToImage.from_preset("toybirds")
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.backbone.generator.to_rgb.compute_dtype == "bfloat16"


def test_a_run_folder_is_its_preset(model, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="a run without preset/"):
        GALIPTextToImage.from_preset(str(tmp_path))
    model.save_to_preset(str(tmp_path / "preset"))
    for source in (str(tmp_path), tmp_path):
        again = GALIPTextToImage.from_preset(source)
    expected = model.generate("an owl", seed=0)
    np.testing.assert_array_equal(again.generate("an owl", seed=0), expected)


def test_image_i_uses_seed_plus_i_whatever_the_batch(model):
    batch = model.generate(PROMPTS, seed=10).astype(int)
    for i, prompt in enumerate(PROMPTS):
        alone = model.generate([prompt], seed=10 + i)[0].astype(int)
        assert np.abs(batch[i] - alone).max() <= 1
    listed = model.generate(PROMPTS, seed=[10, 11, 12]).astype(int)
    np.testing.assert_array_equal(listed, batch)


def test_images_depend_on_seed_prompt_and_truncation(model):
    first = model.generate(PROMPTS[0], seed=0)
    for other in (
        model.generate(PROMPTS[0], seed=1),
        model.generate(PROMPTS[1], seed=0),
        model.generate(PROMPTS[0], seed=0, truncation=0.5),
    ):
        assert not np.array_equal(first, other)
    still = [model.generate(PROMPTS[0], seed=s, truncation=0.0) for s in (0, 1)]
    np.testing.assert_array_equal(*still)


def test_a_missing_seed_is_random(model):
    images = [model.generate(PROMPTS[0]) for _ in range(2)]
    assert not np.array_equal(*images)


def test_words_that_are_not_read_are_named_once(model, capsys):
    model.preprocessor.warns = True
    short, long = "a bird, " * 5, "a bird, " * 100 + "red"
    model.generate([short, "", PROMPTS[1]], seed=0)
    assert capsys.readouterr().err == ""
    for seed in (0, 1):
        model.generate([short, long], seed=seed)
    (line,) = capsys.readouterr().err.splitlines()
    assert "one prompt is longer than the 77 tokens" in line
    assert line.endswith("bird, red")
    assert "bird" not in line.partition("effect: ")[0]


@pytest.mark.parametrize("draw", [GALIPTextToImage.generate, sample])
def test_a_missing_seed_follows_keras(model, draw):
    def drawn(seed):
        keras.utils.set_random_seed(seed)
        return [draw(model, PROMPTS[0]) for _ in range(2)]

    first, again, other = drawn(1), drawn(1), drawn(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(*first)
    assert not np.array_equal(first, other)


def test_loading_a_model_seeds_nothing():
    keras.utils.set_random_seed(1)
    expected = random.random()
    keras.utils.set_random_seed(1)
    load_any("galip_tiny")
    assert random.random() == expected


def test_images_from_token_ids_and_noise(model):
    token_ids = convert_to_numpy(model.preprocessor(PROMPTS))
    latents = noise([4, 5, 6], model.latent_dim)
    images = model.generate_from_token_ids(token_ids, latents)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, model.generate(PROMPTS, seed=4))


def test_sizes_are_those_of_inputs_and_outputs(model):
    sizes = model.sizes
    assert model.embed(["a"]).shape == (1, sizes["embedding_dim"])
    assert model.preprocessor(["a"]).shape == (1, sizes["sequence_length"])
    assert model.generate("a", seed=0).shape[:2] == (sizes["image_size"],) * 2
    assert sizes["latent_dim"] == model.latent_dim
    assert sizes["vocabulary_size"] == model.preprocessor.tokenizer.vocabulary_size()


def test_images_are_the_backbone_s(model):
    token_ids = model.preprocessor(["a red bird"])
    latents = np.asarray(noise([3], 100))
    image = convert_to_numpy(
        model.backbone({"token_ids": np.asarray(token_ids), "noise": latents})
    )[0]
    expected = np.round((np.clip(image, -1, 1) + 1) / 2 * 255).astype(int)
    ours = model.generate("a red bird", seed=3).astype(int)
    assert np.abs(ours - expected).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "from 0 to"),
        ({"seed": 2**63}, "from 0 to"),
        ({"seed": [1, 2]}, "2 seeds were given for 1 images"),
        ({"truncation": -0.1}, "truncation"),
        ({"truncation": float("nan")}, "truncation"),
        ({"truncation": float("inf")}, "truncation"),
        ({"truncation": "1"}, "truncation"),
        ({"truncation": None}, "truncation"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": [1.0]}, "whole number"),
        ({"seed": "3"}, "whole number"),
        ({"seed": float("nan")}, "whole number"),
    ],
)
def test_impossible_requests_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.generate("a bird", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": None}, "prompts are strings, not None"),
        ({"seeds": []}, "there are no seeds"),
        ({"seeds": [0.5]}, "whole number"),
        ({"best_of": 0}, "`best_of` must be"),
        ({"best_of": 1.5}, "`best_of` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
    ],
)
def test_impossible_samples_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(model, **{"prompts": "a bird", "seeds": [0], **arguments})


@pytest.mark.parametrize("prompts", [b"a bird", np.array(["a bird"])])
def test_samples_take_the_prompts_of_generate(model, prompts):
    images = sample(model, prompts, seeds=3)
    np.testing.assert_array_equal(images, model.generate(prompts, seed=3))


def test_long_prompts_are_cut_and_short_ones_padded(model):
    token_ids = np.asarray(model.preprocessor(["x " * 5000, "x"]))
    assert token_ids.shape == (2, 77)
    start, end = token_ids[1][0], token_ids[1][2]
    assert token_ids[0][0] == start
    assert token_ids[0][-1] == end
    assert (token_ids[1][3:] == 0).all()


def test_preset_round_trip_through_keras_hub(model, tmp_path):
    folder = str(tmp_path / "preset")
    model.save_to_preset(folder)
    loaded = keras_hub.models.TextToImage.from_preset(folder)
    assert type(loaded) is GALIPTextToImage
    np.testing.assert_array_equal(
        loaded.generate(PROMPTS, seed=1), model.generate(PROMPTS, seed=1)
    )
    # Frozen variables stay frozen, and trainable ones trainable.
    count = len(model.backbone.trainable_variables)
    assert len(loaded.backbone.trainable_variables) == count
    assert not loaded.backbone.clip.trainable_variables
    backbone = GALIPBackbone.from_preset(folder)
    assert backbone.generator.image_size == 64


def test_embedding_and_decoding_leave_nothing_to_save(model):
    layers = {id(layer) for layer in model._flatten_layers()}
    text = model.embed(PROMPTS)
    images = model.decode(noise(range(3), model.latent_dim), text)
    assert {id(layer) for layer in model._flatten_layers()} == layers
    expected = model.generate(PROMPTS, seed=0).astype(int)
    assert np.abs(images - expected).max() <= 1


def test_the_tiny_preset_is_the_same_clip_every_time(model):
    other = GALIPBackbone.from_preset("galip_tiny")
    for ours, theirs in zip(model.backbone.clip.weights, other.clip.weights):
        np.testing.assert_array_equal(convert_to_numpy(ours), convert_to_numpy(theirs))


def test_a_clip_that_cannot_be_loaded_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="as `clip`") as caught:
        build("galip_vit_base_patch32", clip=str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_toybirds_is_small_and_complete():
    folder = pathlib.Path(preset_folder("toybirds"))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size <= 20e6
    assert "## Limits" in (folder / "README.md").read_text()
    assert preset_folder("my_birds") == "my_birds"


def test_toybirds_draws_the_color_of_the_prompt():
    model = GALIPTextToImage.from_preset("toybirds")
    hues = {"red": 0, "blue": 2}
    for color, channel in hues.items():
        images = model.generate([f"a {color} bird"] * 8, seed=0).astype("float32")
        middle = images[:, 24:40, 24:40].mean(axis=(0, 1, 2))
        assert np.argmax(middle) == channel


def test_unknown_words_take_several_tokens():
    preprocessor = GALIPTextToImage.from_preset("toybirds").preprocessor
    prompts = ["A red bird's wing", "an astronaut, perching; ASTRONAUT"]
    # The captions of the training data say "wings".
    assert set(preprocessor.unknown_words(prompts)) <= {"s", "wing", "astronaut"}
    assert "astronaut" in preprocessor.unknown_words(prompts)
    assert preprocessor.unknown_words(["this is a little bird"]) == []
