"""`galip sample --best-of`: the best of several candidates."""

import json
import pathlib

import numpy as np
import pytest
from keras.ops import convert_to_numpy
from PIL import Image
from sampled import names, pixels, sample, told

import galip_keras
from galip_keras.metrics import clip_score
from galip_keras.metrics.evaluator import Evaluator
from galip_keras.sampling.latent import combine

# What does not depend on the backend.
once = pytest.mark.backend("tensorflow")

pytestmark = [pytest.mark.every_backend, pytest.mark.usefixtures("loaded_once")]


def own_scores(network, images, text):
    clip = network.backbone.clip
    found = clip.extract_features_and_embed(images / np.float32(127.5) - 1)[1]
    return [clip_score(x[None], text[None]) for x in convert_to_numpy(found)]


def test_the_best_of_some(galip, preset, network, tmp_path):
    args = "an owl", "--model", preset, "--json", "--out"
    output = sample(galip, *args, tmp_path, "--seeds", "0,5", "--best-of", 3)
    kept = json.loads(output)
    assert [x["asked_seed"] for x in kept] == [0, 5]
    (text,) = network.embed(["an owl"])
    for image, first in zip(kept, (0, 15)):
        made = network.generate(["an owl"] * 3, seed=first)
        scores = own_scores(network, made, text)
        assert image["seed"] == first + int(np.argmax(scores))
        assert image["score"] == pytest.approx(max(scores), abs=1e-3)
        assert image["scorer"] == "the model's own CLIP"
        path = pathlib.Path(image.pop("path"))
        assert path.name == f"an-owl-07e621551a1d-best-of3-{first // 3}.png"
        assert told(path) == image
        assert Image.open(path).text == {k: str(v) for k, v in image.items()}
        # The seed that it tells makes it again.
        output = sample(galip, *args, tmp_path / "again", "--seeds", image["seed"])
        (again,) = json.loads(output)
        np.testing.assert_array_equal(pixels(path), pixels(again["path"]))


@once
def test_the_best_of_some_on_a_sheet(galip, preset, tmp_path, calls):
    args = "an owl", "--model", preset, "--best-of", 2, "--json", "--out", tmp_path
    (sheet,) = json.loads(sample(galip, *args, "--batch-size", 5))
    assert calls == [5] * 7
    assert sheet["asked_seeds"] == list(range(16))
    assert [seed // 2 for seed in sheet["seeds"]] == list(range(16))
    # Not always the same of both.
    assert len({seed % 2 for seed in sheet["seeds"]}) == 2
    assert len(sheet["scores"]) == 16
    (alone,) = json.loads(sample(galip, *args, "--seeds", 15))
    assert alone["seed"] == sheet["seeds"][15]
    difference = pixels(sheet["path"])[192:, 192:].astype(int) - pixels(alone["path"])
    assert np.abs(difference).max() <= 1


@once
def test_another_scorer(galip, error, preset, network, scorer, tmp_path):
    args = "an owl", "--model", preset, "--best-of", 4, "--out", tmp_path
    output = sample(galip, *args, "--seeds", "0-2", "--scorer", scorer, "--json")
    judge = Evaluator(scorer=scorer).scorers[0]
    (text,) = judge.embed(["an owl"])
    for image in json.loads(output):
        first = 4 * image["asked_seed"]
        made = network.generate(["an owl"] * 4, seed=first)
        scores = [clip_score(x[None], text[None]) for x in judge.extractor(made)]
        assert image["seed"] == first + int(np.argmax(scores))
        assert image["score"] == pytest.approx(max(scores), abs=1e-3)
        assert image["scorer"] == told(image["path"])["scorer"] == scorer
    code, line = error("sample", *args, "--scorer", tmp_path)
    assert code == 1
    assert f"the CLIP '{tmp_path}' could not be loaded" in line


@once
def test_scores_that_are_no_numbers(error, preset, tmp_path, monkeypatch):
    monkeypatch.setattr("galip_keras.metrics.clip_score", lambda *_: np.nan)
    args = "an owl", "--model", preset, "--best-of", 2, "--out", tmp_path
    assert "not numbers" in error("sample", *args, "--seeds", 0)[1]
    assert names(tmp_path) == []


@once
def test_the_best_of_sums(galip, preset, network, tmp_path):
    args = "a bird", "--plus", "red", "--minus", "blue", "--model", preset, "--json"
    output = sample(galip, *args, "--seeds", 1, "--best-of", 4, "--out", tmp_path)
    (image,) = json.loads(output)
    texts = combine(network, ["a bird"], ["red"], ["blue"])
    noise = galip_keras.noise(range(4, 8), network.backbone.generator.latent_dim)
    made = network.decode(np.asarray(noise), np.repeat(texts, 4, axis=0))
    scores = own_scores(network, made, texts[0])
    assert image["seed"] == 4 + int(np.argmax(scores))
    assert image["score"] == pytest.approx(max(scores), abs=1e-3)
