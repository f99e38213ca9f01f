"""The images of `toybirds` are those of the commit before."""

import pathlib

import numpy as np
import pytest

from galip_keras import GALIPTextToImage

pytestmark = pytest.mark.every_backend

STORED = pathlib.Path(__file__).parents[1] / "data" / "toybirds_images.npz"

PROMPTS = [
    "a red bird",
    "a small blue bird with yellow wings flying in the sky",
    "this bird has a black crown",
    "a castle by the sea",
]


def generate():
    model = GALIPTextToImage.from_preset("toybirds")
    return {
        "one_seed": model.generate(PROMPTS, seed=123456789012),
        "truncated": model.generate(PROMPTS, seed=[5, 6, 7, 2**63 - 1], truncation=0.6),
        "single": model.generate("a red bird", seed=3),
    }


@pytest.fixture(scope="module")
def images():
    return generate()


@pytest.mark.parametrize("name", ["one_seed", "truncated", "single"])
def test_images_are_those_of_the_commit_before(images, name):
    """Equal but for rounding, which differs between processors and backends.

    When the preset changes, replace the file. From the root of the repository:

        python tests/models/test_toybirds_images.py
    """
    with np.load(STORED) as stored:
        difference = np.abs(images[name].astype(int) - stored[name])
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01


if __name__ == "__main__":
    STORED.parent.mkdir(exist_ok=True)
    np.savez_compressed(STORED, **generate())
