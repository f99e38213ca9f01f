"""The scripts in examples/toybirds that no other command runs."""

import pathlib
import sys

import child
import extras
import numpy as np
import pytest
import tiny
from click.testing import CliRunner

from galip_keras import FrozenCLIP, GALIPTextToImage, GALIPTextToImagePreprocessor
from galip_keras.datasets.toybirds import birds as toybirds
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.random_clip import random_clip

FOLDER = pathlib.Path(__file__).parents[1] / "examples" / "toybirds"
SPEC = {
    **tiny.ARCHITECTURE,
    "discriminator": {"extractor_channels": 8, "head_channels": 4},
    "training": ARCHITECTURES["galip_small"]["training"],
}

# `python gpu.py ARGUMENTS` where TensorFlow cannot be imported.
WITHOUT_TENSORFLOW = f"""{child.WITHOUT_TENSORFLOW}
sys.path.insert(0, {str(FOLDER)!r})
import gpu

gpu.SPEC, gpu.SIZE = {SPEC!r}, 32
gpu.main(sys.argv[1:])
"""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    monkeypatch.setattr(gpu, "SPEC", SPEC)
    monkeypatch.setattr(gpu, "SIZE", 32)
    monkeypatch.setitem(ARCHITECTURES, "galip_small", SPEC)
    yield gpu
    del sys.modules["gpu"]


@pytest.fixture
def packed(gpu, tmp_path):
    """A dataset of four images, packed, and the folder of its CLIP."""
    backbone, tokenizer = random_clip(**SPEC["random_clip"])
    backbone.save_to_preset(str(tmp_path / "clip"))
    tokenizer.save_to_preset(str(tmp_path / "clip"))
    clip = FrozenCLIP(backbone, feature_layers=(0, 1))
    preprocessor = GALIPTextToImagePreprocessor(tokenizer, 40)
    images = np.random.default_rng(0).integers(0, 256, (4, 38, 38, 3), "uint8")
    captions = [["a red bird", f"{number}"] for number in range(4)]
    gpu.pack(clip, preprocessor, images, captions, tmp_path / "data.npz")
    return tmp_path


@pytest.fixture
def named_colors(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import birds

    yield birds.named_colors
    del sys.modules["birds"]


def test_named_colors_are_those_of_the_bird(named_colors):
    seen = set()
    for seed in range(300):
        bird = toybirds.bird(seed)
        for caption in toybirds.captions(bird, seed):
            for name, color in named_colors(caption).items():
                assert color == getattr(bird, name), caption
                seen.add(name)
    assert seen == {"body", "wing", "crown", "belly", "beak_color"}


def test_lowered_wings_are_not_red(named_colors):
    assert named_colors("a grey bird with lowered wings") == {"body": "grey"}
    assert named_colors("a bird with lowered red wings") == {"wing": "red"}


def test_batches_are_the_same_after_a_resume(gpu, packed):
    with np.load(packed / "data.npz") as file:
        data = dict(file)
    stream = gpu.batches(data, 4, 0, 1.0, 5, seed=1)
    batches = [next(stream) for _ in range(3)]
    resumed = next(gpu.batches(data, 4, 2, 1.0, 5, seed=1))
    for name, rows in batches[2].items():
        np.testing.assert_array_equal(resumed[name], rows)
    assert batches[0]["images"].shape == (4, 32, 32, 3)
    for batch in batches:
        # "0" cannot be made wrong: the next caption, which may be of the same image.
        assert np.isfinite(batch["mismatched_embeddings"]).all()
        red = np.isclose(batch["text_embeddings"], data["embeddings"][0, 0], atol=1e-3)
        red = red.all(axis=1)
        wrong = batch["mismatched_embeddings"]
        assert (wrong[red] != batch["text_embeddings"][red]).any(axis=1).all()


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_training_on_jax_without_tensorflow(packed, gpu):
    extras.need("jax", "jax")
    for steps in (2, 3):
        arguments = ["train", packed / "data.npz", packed / "run", "--steps", steps]
        child.run(
            WITHOUT_TENSORFLOW, *arguments, "--batch-size", 2, KERAS_BACKEND="jax"
        )
    assert (packed / "run" / "checkpoints" / "step_00000003").is_dir()
    arguments = ["preset", str(packed / "run"), "--clip", str(packed / "clip")]
    result = CliRunner().invoke(gpu.main, [*arguments, "--out", str(packed / "preset")])
    assert result.exit_code == 0, result.output
    model = GALIPTextToImage.from_preset(str(packed / "preset"))
    assert model.generate("a red bird", seed=0).shape == (32, 32, 3)
