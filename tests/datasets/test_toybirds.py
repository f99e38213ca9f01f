"""The drawn birds as a dataset: splits, captions, images, and a sheet of them."""

import numpy as np
import pytest
from drawn import decoded

from galip_keras.datasets import pipeline, prepare, prepared
from galip_keras.datasets.sheet import contact_sheet
from galip_keras.datasets.toybirds import birds
from galip_keras.datasets.toybirds import builder as toybirds
from galip_keras.datasets.toybirds.drawing import draw

pytestmark = pytest.mark.backend("tensorflow")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Ten birds a split instead of thousands."""
    with pytest.MonkeyPatch.context() as patch:
        splits = {name: (first, 10) for name, (first, _) in toybirds._SPLITS.items()}
        patch.setattr(toybirds, "_SPLITS", splits)
        return prepare("toybirds", tmp_path_factory.mktemp("records"))


def rows(builder, split):
    files = pipeline.shards(builder, split)
    return list(pipeline.records(builder, files).as_numpy_iterator())


def test_splits(few):
    assert prepared("toybirds", few._data_dir_root) == [str(few.data_path)]
    assert {name: info.num_examples for name, info in few.info.splits.items()} == {
        "train": 10,
        "test": 10,
        "compositions": 10,
    }
    held_out = {
        split: [
            birds.is_held_out(
                birds.bird(int(row["id"].split(b"/")[1]), split == "compositions")
            )
            for row in rows(few, split)
        ]
        for split in few.info.splits
    }
    assert not any(held_out["train"] + held_out["test"])
    assert all(held_out["compositions"])


def test_seeds_of_splits_never_overlap():
    ranges = [set(range(first, first + n)) for first, n in toybirds._SPLITS.values()]
    assert sum(map(len, ranges)) == len(set.union(*ranges)) == 12_000


def test_a_record_shows_the_bird_that_its_captions_describe(few):
    for row in rows(few, "train"):
        seed = int(row["id"].decode().removeprefix("train/"))
        bird = birds.bird(seed)
        captions = [text.decode() for text in row["captions"]]
        assert captions == birds.captions(bird, seed)
        stored = decoded(row["image"]).astype("float32")
        drawn = np.asarray(draw(bird, seed, 152), dtype="float32")
        # The error of JPEG is far below the distance to another bird.
        assert np.abs(stored - drawn).mean() < 3


def test_settings_that_toybirds_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="leave out birds"):
        prepare("toybirds:birds", tmp_path)
    with pytest.raises(ValueError, match="its own captions"):
        prepare("toybirds", tmp_path, captions="birds")
    with pytest.raises(ValueError, match="Beam"):
        prepare("toybirds", tmp_path, beam_runner="DirectRunner")


def test_sheet(few):
    sheet = contact_sheet(few, "test", count=6)
    columns, pixels = 4, np.asarray(sheet)
    assert sheet.mode == "RGB"
    tile_height, tile_width = sheet.height // 2, sheet.width // columns
    tiles = [
        pixels[i // 4 * tile_height :, i % 4 * tile_width :][:tile_height, :tile_width]
        for i in range(8)
    ]
    # Six images with words below them, and two empty tiles.
    assert [bool((tile < 255).any()) for tile in tiles] == [True] * 6 + [False] * 2
    assert all((tile[-50:] == 0).any() for tile in tiles[:6])
    with pytest.raises(ValueError, match="no split"):
        contact_sheet(few, "validation")
