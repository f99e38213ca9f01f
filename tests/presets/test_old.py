"""A run folder and a preset written by the version before the packages.

`tests/data/old_run.tar.xz` holds them and the images that this version made: of the
preset in the run folder, and of the run after it was resumed to step 5.
"""

import tarfile
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from galip_keras import GALIPTextToImage
from galip_keras.models.architectures import ARCHITECTURES

pytestmark = pytest.mark.every_backend

ROOT = Path(__file__).parents[2]
PROMPTS = ["a red circle", "a blue square"]
ARCHITECTURE = {
    "clip": "random",
    "random_clip": {
        "image_size": 32,
        "patch_size": 16,
        "hidden_dim": 8,
        "num_layers": 2,
        "num_heads": 2,
        "embedding_dim": 8,
        "text_hidden_dim": 8,
        "text_num_layers": 1,
        "text_num_heads": 2,
    },
    "feature_layers": [0, 1],
    "generator": {
        "latent_dim": 8,
        "base_channels": 2,
        "bridge_channels": 4,
        "prompt_layers": [1],
    },
    "discriminator": {"extractor_channels": 4, "head_channels": 2},
}


@pytest.fixture
def old(tmp_path):
    with tarfile.open(ROOT / "tests" / "data" / "old_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = tmp_path / "run" / "config.json"
    text = config.read_text()
    text = text.replace("/old/shapes", str(ROOT / "examples" / "shapes"))
    config.write_text(text.replace("/old", str(tmp_path)))
    return tmp_path


def assert_same_images(preset, expected, tolerance):
    images = GALIPTextToImage.from_preset(str(preset)).generate(PROMPTS, seed=3)
    difference = np.abs(images.astype(int) - np.load(expected))
    assert difference.max() <= tolerance


def test_an_old_preset_makes_the_same_images(old):
    text = (old / "run" / "preset" / "config.json").read_text()
    assert '"galip_keras.text_to_image"' in text
    # Other backends and machines round differently.
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "galip_keras", DeprecationWarning)
        assert_same_images(old / "run" / "preset", old / "images.npy", tolerance=1)


@pytest.mark.backend("tensorflow", "torch")
def test_an_old_run_resumes(galip, old, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "galip_tiny", ARCHITECTURE)
    code, output, errors = galip(
        "train", "--dataset", f"folder:{ROOT / 'examples' / 'shapes'}",
        "--preset", "galip_tiny", "--batch-size", "8", "--steps", "5",
        "--run", old / "run", "--data-dir", old / "data", "--generator-lr", "0.01",
        "--save-every", "3", "--report-every", "1", "--sample-every", "3", "--resume",
    )  # fmt: skip
    assert (code, output) == (0, f"{old / 'run'}\n"), errors
    assert "Resumed at step 3 of 5." in errors
    if keras.backend.backend() == "tensorflow":
        assert_same_images(old / "run" / "preset", old / "resumed.npy", tolerance=2)
