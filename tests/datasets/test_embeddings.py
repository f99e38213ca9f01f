"""Text embeddings are computed once, equal the model's own, and are never stale."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from galip_keras import GALIPTextToImage
from galip_keras.datasets import embeddings, pipeline, prepare

CAPTIONS = [["a red bird"], ["a blue bird", "blue", "it is blue"], ["grey " * 50]]


@pytest.fixture(scope="module")
def model():
    return GALIPTextToImage.from_preset("galip_tiny")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    rows = []
    for number, captions in enumerate(CAPTIONS):
        # The grey level identifies the captions of the image.
        Image.new("RGB", (20, 20), (80 * number,) * 3).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": captions})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return prepare(f"folder:{folder}", tmp_path_factory.mktemp("records"))


@pytest.fixture
def cached(builder, model):
    def cache():
        return embeddings.cache(builder, model.backbone.clip, model.preprocessor)

    return cache


def states(files):
    return [os.stat(file).st_mtime_ns for file in files]


def expected(model, captions):
    token_ids = np.asarray(model.preprocessor(tf.constant(captions)))
    return np.asarray(model.backbone.clip.embed_text(token_ids))


def test_embeddings_equal_those_of_the_model(builder, model, cached):
    files = cached()
    stored = pipeline.records(builder, pipeline.shards(builder, "train"), files)
    rows = list(stored.as_numpy_iterator())
    assert len(rows) == len(CAPTIONS)
    for row in rows:
        captions = CAPTIONS[int(Path(row["id"].decode()).stem)]
        assert [text.decode() for text in row["captions"]] == [
            text.strip() for text in captions
        ]
        assert row["embeddings"].dtype == np.float16
        reference = expected(model, captions)
        # Half a unit in the last place of float16.
        np.testing.assert_allclose(row["embeddings"], reference, rtol=6e-4, atol=1e-4)


def test_many_captions_take_several_batches(builder, model, cached, monkeypatch):
    whole = cached()
    first = list(pipeline.records(builder, pipeline.shards(builder, "train"), whole))
    monkeypatch.setattr(embeddings, "_BATCH_SIZE", 2)
    for file in whole:
        os.remove(file)
    again = pipeline.records(builder, pipeline.shards(builder, "train"), cached())
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a["embeddings"], b["embeddings"], atol=2e-3)


def test_batches_have_embeddings_of_the_image_s_own_captions(builder, model, cached):
    (batch,) = pipeline.training_batches(
        builder, None, crop_size=16, batch_size=64, embeddings=cached()
    ).take(1)
    assert batch.keys() == {"images", "text_embeddings"}
    assert batch["text_embeddings"].dtype == tf.float32
    found = set()
    for image, embedding in zip(batch["images"], batch["text_embeddings"], strict=True):
        number = round((float(image[0, 0, 0]) + 1) * 127.5 / 80)
        errors = np.abs(expected(model, CAPTIONS[number]) - embedding).max(axis=-1)
        assert errors.min() < 0.01
        found.add((number, int(errors.argmin())))
    assert found == {(0, 0), (1, 0), (1, 1), (1, 2), (2, 0)}


def test_computed_once(cached):
    assert states(cached()) == states(cached())


def test_a_truncated_file_is_written_again(cached):
    files = cached()
    whole = Path(files[0]).read_bytes()
    Path(files[0]).write_bytes(whole[:-1])
    assert Path(cached()[0]).read_bytes() == whole


def test_a_damaged_index_is_written_again(cached):
    index = Path(cached()[0]).with_name("index.json")
    whole = index.read_text()
    for damage in ("", "{}", whole[:-2]):
        index.write_text(damage)
        cached()
        assert index.read_text() == whole


def test_other_records_make_it_stale(builder, cached):
    before = states(cached())
    os.utime(pipeline.shards(builder, "train")[0])
    assert states(cached()) != before


def test_other_weights_have_their_own_cache(builder, model, cached):
    files = cached()
    variable = model.backbone.clip.text_variables[-1]
    value = np.asarray(variable)
    variable.assign(value + 1e-3)
    try:
        assert not set(cached()) & set(files)
    finally:
        variable.assign(value)
    assert cached() == files


def test_no_partial_cache_stays(builder, model, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    folder = Path(builder.data_path, "embeddings")
    monkeypatch.setattr(embeddings, "_index", fail)
    before = sorted(folder.rglob("*"))
    with pytest.raises(OSError, match="No space"):
        embeddings.cache(builder, model.backbone.clip, model.preprocessor)
    assert sorted(folder.rglob("*")) == before
