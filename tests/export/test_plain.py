"""NumPy draws what Keras draws, and the command line draws without Keras."""

import json
import pathlib

import child
import numpy as np
import pytest
import tiny
from PIL import Image

from galip_keras import GALIPTextToImage
from galip_keras.export.plain import Plain
from galip_keras.models.bundled import bundled_folder
from galip_keras.sampling import sampler

pytestmark = pytest.mark.every_backend

HARD = json.loads(
    pathlib.Path(__file__).parents[1].joinpath("hard_sentences.json").read_text("utf-8")
)

# Draws on the command line, and tells which libraries that took.
SAMPLE = """
import sys
from galip_cli.main import main

try:
    main(["sample", *sys.argv[1:]])
finally:
    heavy = ("keras", "keras_hub", "tensorflow", "tensorflow_text", "jax", "torch")
    print(*(name for name in heavy if name in sys.modules))
"""


@pytest.fixture(scope="module")
def keras():
    return GALIPTextToImage.from_preset("toybirds")


@pytest.fixture(scope="module")
def plain():
    return Plain(bundled_folder("toybirds"))


def assert_same(images, expected):
    """Equal but for rounding, which differs between processors and backends."""
    difference = np.abs(images.astype(int) - expected)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.001


def test_images(keras, plain):
    prompts = ["a red bird", "A small BLUE bird\nwith yellow wings", "", "owl " * 99]
    assert plain.sizes == keras.sizes
    seeds = [0, 7, 2**40, 2**63 - 1]
    for truncation in (1.0, 0.4):
        images = plain.generate(prompts, seeds, truncation)
        assert_same(images, keras.generate(prompts, seeds, truncation))


def test_another_preset(tmp_path):
    """Of other sizes, and with weights that are nowhere zero."""
    model = tiny.text_to_image(spread=0.3)
    model.save_to_preset(str(tmp_path))
    images = Plain(tmp_path).generate(["a red bird", "an owl"], seed=5)
    assert np.ptp(images[0].astype(int) - images[1]) > 1
    assert_same(images, model.generate(["a red bird", "an owl"], seed=5))


def test_token_ids(keras, plain):
    texts = [*HARD, "<|endoftext|> a'll 12 ' \u3000\u0130"]
    expected = np.asarray(keras.preprocessor(texts))
    np.testing.assert_array_equal(plain._tokenize(texts), expected)


def test_unknown_words(keras, plain):
    prompts = ["A red bird", "an astronaut's wing, an Astronaut"]
    expected = keras.preprocessor.unknown_words(prompts)
    assert plain.unknown_words(prompts) == expected != []


def test_words_that_are_lost(keras, capsys):
    keras.preprocessor.warns = True
    for model in (keras.preprocessor, Plain(bundled_folder("toybirds"))):
        model.warn_of_lost_words(["owl " * 99])
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert "longer than the 77 tokens" in first


@pytest.mark.parametrize("args", [[], ["--seeds", "3", "--truncation", "0.5"]])
def test_the_command_line_draws_without_keras(keras, tmp_path, args):
    out = ["--out", tmp_path, "--json"]
    *output, heavy = child.run(SAMPLE, "a red bird", *args, *out).stdout.splitlines()
    assert heavy == ""
    (drawn,) = json.loads("\n".join(output))
    if args:
        images = [keras.generate("a red bird", seed=3, truncation=0.5)]
    else:
        images = [keras.generate("a red bird", seed=seed) for seed in range(16)]
    side = int(len(images) ** 0.5)
    rows = [np.concatenate(images[i : i + side], 1) for i in range(0, side**2, side)]
    assert_same(np.asarray(Image.open(drawn["path"])), np.concatenate(rows))


def test_keras_draws_many_images_and_what_is_no_plain_prompt(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        sampler, "load_keras", lambda source, precision: loaded.append(source)
    )
    assert isinstance(sampler.load_any("toybirds", sampler.FEW), Plain)
    sampler.load_any("toybirds", sampler.FEW + 1)
    sampler.load_any("toybirds")
    sampler.load_any("toybirds", 1, precision="bfloat16")
    sampler.load_any("galip_tiny", 1)
    assert loaded == ["toybirds", "toybirds", "toybirds", "galip_tiny"]


def test_every_image_of_a_sheet_counts(galip, monkeypatch, tmp_path):
    asked = []

    def load_any(model, num_images, precision):
        asked.append(num_images)
        raise ValueError("that is all")

    monkeypatch.setattr(sampler, "load_any", load_any)
    for options in ([], ["--seeds", "0-2"], ["--minus", "blue"]):
        code, _, errors = galip("sample", "a", "b", "--out", tmp_path, *options)
        assert (code, errors) == (1, "Error: that is all\n")
    assert asked == [2 * 16, 2 * 3, None]
