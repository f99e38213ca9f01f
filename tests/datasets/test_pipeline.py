"""The stream of training batches: shapes, randomness, resuming, pixels."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from galip_keras.datasets import pipeline, prepare


def preprocessor(captions):
    """Token ids are bytes, so that ids identify captions."""
    padded = tf.strings.substr(tf.strings.join([captions, "      "]), 0, 6)
    return tf.ensure_shape(tf.io.decode_raw(padded, tf.uint8), (None, 6))


def texts(batch):
    return [bytes(ids.astype("uint8")).decode().strip() for ids in batch["token_ids"]]


def stream(builder, **kwargs):
    arguments = {"crop_size": 16, "batch_size": 4, **kwargs}
    return pipeline.training_batches(builder, preprocessor, **arguments)


def take(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """Ten noisy images, captioned `0 a` to `9 a`; the last also `9 b` and `9 c`."""
    folder = tmp_path_factory.mktemp("ten")
    random = np.random.default_rng(0)
    rows = []
    for number in range(10):
        pixels = random.integers(0, 256, (20, 30, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"{number} a"})
    rows[9]["text"] = ["9 a", "9 b", "9 c"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return prepare(f"folder:{folder}", tmp_path_factory.mktemp("records"))


def one(tmp_path, pixels):
    """A dataset of one image."""
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a bird")
    return prepare(f"folder:{tmp_path}", tmp_path / "records")


def test_element_spec(ten):
    spec = stream(ten, crop_size=24, batch_size=3).element_spec
    assert spec["images"] == tf.TensorSpec((3, 24, 24, 3), tf.float32)
    assert spec["token_ids"] == tf.TensorSpec((3, 6), tf.int32)


def test_pixels_are_in_range(ten):
    images = np.stack([batch["images"] for batch in take(stream(ten), 5)])
    assert -1.0 <= images.min() < -0.5
    assert 0.5 < images.max() <= 1.0


def test_each_pass_has_every_image_once_in_a_new_order(ten):
    batches = take(stream(ten, batch_size=10), 4)
    orders = [[text[0] for text in texts(batch)] for batch in batches]
    assert all(sorted(order) == list("0123456789") for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_seed_determines_everything(ten):
    def streams(seed, global_seed):
        tf.random.set_seed(global_seed)
        return take(stream(ten, seed=seed), 6)

    first, again, other = streams(0, 1), streams(0, 2), streams(1, 1)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a["images"], b["images"])
        np.testing.assert_array_equal(a["token_ids"], b["token_ids"])
    assert [texts(batch) for batch in first] != [texts(batch) for batch in other]


@pytest.mark.parametrize("skip", [1, 2, 5, 23])
def test_skip_continues_the_stream(ten, skip):
    expected = take(stream(ten), skip + 3)[skip:]
    for a, b in zip(expected, take(stream(ten, skip=skip), 3)):
        np.testing.assert_array_equal(a["images"], b["images"])
        np.testing.assert_array_equal(a["token_ids"], b["token_ids"])


def test_skipping_far_is_cheap(ten):
    # A million passes: reading them would take hours.
    assert len(take(stream(ten, skip=10**7), 1)) == 1


@pytest.mark.parametrize("skip", [0, 3])
def test_hosts_share_one_stream(ten, skip):
    numbers = {"latent_dim": 5, "augmentation": 7}
    whole = take(stream(ten, batch_size=6, skip=skip, **numbers), 4)
    hosts = [
        take(stream(ten, batch_size=2, skip=skip, host=(index, 3), **numbers), 4)
        for index in range(3)
    ]
    for step, batch in enumerate(whole):
        for index in range(3):
            assert hosts[index][step].keys() == batch.keys()
            for name, rows in hosts[index][step].items():
                expected = batch[name][2 * index : 2 * index + 2]
                np.testing.assert_array_equal(rows, expected)


def test_hard_mismatches(tmp_path):
    """Each image's own caption is made wrong, and the same way after a resume."""
    colors = ("red", "blue", "green", "white")
    for number, color in enumerate(colors):
        Image.new("RGB", (20, 20), (60 * number,) * 3).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"{color} one")
    builder = prepare(f"folder:{tmp_path}", tmp_path / "records")
    batches = take(stream(builder, hard_mismatches=1.0), 4)
    for batch in batches:
        assert batch["mismatched_token_ids"].shape == batch["token_ids"].shape
        wrong = texts({"token_ids": batch["mismatched_token_ids"]})
        for own, other in zip(texts(batch), wrong):
            assert own != other
    (resumed,) = take(stream(builder, hard_mismatches=1.0, skip=3), 1)
    for name, rows in batches[3].items():
        np.testing.assert_array_equal(resumed[name], rows)


def test_hard_mismatches_change_nothing_else(ten):
    for batch, plain in zip(
        take(stream(ten, hard_mismatches=0.5), 3), take(stream(ten), 3)
    ):
        wrong = texts({"token_ids": batch.pop("mismatched_token_ids")})
        # No word of these captions can be replaced.
        assert wrong == [*texts(plain)[1:], texts(plain)[0]]
        for name, rows in plain.items():
            np.testing.assert_array_equal(batch[name], rows)


def test_fewer_images_than_a_batch(ten):
    (batch,) = take(stream(ten, batch_size=32), 1)
    assert batch["images"].shape == (32, 16, 16, 3)
    assert len({text[0] for text in texts(batch)}) == 10


def test_many_files_are_read_in_turn(ten, tmp_path, monkeypatch):
    """The ten records in five files: each pass reads all in its own order."""
    (file,) = pipeline.shards(ten, "train")
    records = list(tf.data.TFRecordDataset(file).as_numpy_iterator())
    files = [str(tmp_path / f"{i}.tfrecord") for i in range(5)]
    for i, path in enumerate(files):
        with tf.io.TFRecordWriter(path) as writer:
            for record in records[2 * i : 2 * i + 2]:
                writer.write(record)
    monkeypatch.setattr(pipeline, "shards", lambda *args: files)

    def orders():
        batches = take(stream(ten, batch_size=10, shuffle_buffer=1), 3)
        return ["".join(text[0] for text in texts(batch)) for batch in batches]

    first = orders()
    assert [sorted(order) for order in first] == [list("0123456789")] * 3
    assert len(set(first)) == 3
    assert orders() == first


def test_cropping_while_decoding_gives_the_same_pixels(ten):
    """Of an image of the stored size, only the crop is decoded."""
    (record, *_) = pipeline.records(ten, pipeline.shards(ten, "train"))
    jpeg, seed = record["image"], (3, 4)
    whole = tf.io.decode_jpeg(jpeg, channels=3)
    top, left = pipeline._corner(tf.shape(whole)[:2], 256, seed)
    crop = pipeline._decode_crop(jpeg, 304, 256, seed)
    assert (int(top), int(left)) != (0, 0)
    np.testing.assert_array_equal(crop, whole[top : top + 256, left : left + 256])


def test_a_small_shuffle_buffer(ten):
    (batch,) = take(stream(ten, batch_size=10, shuffle_buffer=2), 1)
    assert sorted(text[0] for text in texts(batch)) == list("0123456789")


def test_one_random_caption(ten):
    (batch,) = take(stream(ten, batch_size=600), 1)
    counts = [texts(batch).count(text) for text in ("9 a", "9 b", "9 c")]
    assert sum(counts) == 60
    # Each is binomial with mean 20 and deviation 3.7.
    assert min(counts) > 5


def test_crops_and_flips(tmp_path):
    """Red grows to the right and green downwards, which locates each crop."""
    ramp = np.arange(304) * 255 / 303
    pixels = np.zeros((304, 304, 3), "uint8")
    pixels[..., 0], pixels[..., 1] = ramp[None], ramp[:, None]
    dataset = stream(one(tmp_path, pixels), crop_size=256, batch_size=64)
    images = take(dataset, 1)[0]["images"]
    red, green = images[:, 128, :, 0], images[:, :, 128, 1]
    flipped = red[:, 0] > red[:, -1]
    assert 16 < flipped.sum() < 48  # binomial: mean 32, deviation 4
    red = np.where(flipped[:, None], red[:, ::-1], red)
    # Values give positions: no crop is scaled, and all offsets from 0 to 48 occur.
    for side in (red, green):
        position = (side + 1.0) / 2.0 * 303
        assert np.abs(np.diff(position[:, [0, -1]]) - 255).max() < 4
        offsets = position[:, 0]
        assert -2 < offsets.min() < 12
        assert 36 < offsets.max() < 50
    correlation = np.corrcoef(red[:, 0], green[:, 0])[0, 1]
    assert abs(correlation) < 0.5


@pytest.mark.parametrize("crop_size", [16, 32, 64, 100, 128, 224, 256, 300])
@pytest.mark.parametrize("size", [(304, 304), (304, 461), (608, 304), (50, 33)])
def test_decode_at_any_size(crop_size, size):
    """The left half of the image is black, the right half is white."""
    width, height = size
    pixels = np.zeros((height, width, 3), "uint8")
    pixels[:, width // 2 :] = 255
    jpeg = tf.io.encode_jpeg(pixels, quality=100)
    shorter = round(crop_size * 76 / 64)
    image = pipeline._decode(jpeg, shorter).numpy()
    assert image.dtype == np.uint8
    assert min(image.shape[:2]) == shorter
    np.testing.assert_allclose(image.shape[1] / image.shape[0], width / height, 0.06)
    columns = image.mean(axis=(0, 2))
    quarter = image.shape[1] // 4
    assert columns[:quarter].max() < 8
    assert columns[-quarter:].min() > 247
    # Neither shrinking nor resizing moves the image.
    assert abs(columns.mean() - pixels.mean()) < 6


def test_shrinking_is_antialiased():
    """A checkerboard becomes uniform grey, not another pattern."""
    pixels = np.indices((304, 304)).sum(0) % 2 * np.uint8(255)
    pixels = np.repeat(pixels[..., None], 3, axis=-1).astype("uint8")
    jpeg = tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False)
    for shorter in (38, 76, 95, 155):  # by 8, by 4, by 2 and resizing, by resizing
        image = pipeline._decode(jpeg, shorter).numpy().astype(float)
        assert image[4:-4, 4:-4].std() < 3


def test_num_examples(ten):
    assert pipeline.num_examples(ten) == 10
    assert pipeline.num_examples(ten, "train") == 10
    with pytest.raises(ValueError, match="there is no split 'test': choose from train"):
        pipeline.num_examples(ten, "test")
    with pytest.raises(ValueError, match="there is no split 'test'"):
        stream(ten, split="test")


def test_random_numbers_of_a_step_follow_from_its_images(ten):
    arguments = {"batch_size": 500, "latent_dim": 100, "augmentation": 7}
    first, second = take(stream(ten, **arguments), 2)
    assert first["noise"].shape == (500, 100)
    assert first["augmentation"].shape == (500, 2, 7)
    assert not np.array_equal(first["noise"], second["noise"])
    (resumed,) = take(stream(ten, skip=1, **arguments), 1)
    for name in ("noise", "augmentation"):
        np.testing.assert_array_equal(resumed[name], second[name])
    assert abs(first["noise"].mean()) < 0.02
    assert abs(first["noise"].std() - 1) < 0.02
    uniform = first["augmentation"]
    assert 0 <= uniform.min() < 0.01 < 0.99 < uniform.max() < 1
    real, fake = uniform[:, 0].ravel(), uniform[:, 1].ravel()
    assert abs(np.corrcoef(real, fake)[0, 1]) < 0.1


def test_fixed_images(ten):
    images, captions = pipeline.fixed_images(ten, 25, size=16)
    assert images.shape == (10, 16, 16, 3)
    assert images.dtype == np.uint8
    assert len(captions) == 25
    assert captions[10:20] == captions[:10]
    few, first = pipeline.fixed_images(ten, 3, size=16)
    assert first == captions[:3]
    np.testing.assert_array_equal(few, images[:3])


def test_keras_hub_tokenizer(ten):
    keras_hub = pytest.importorskip("keras_hub")
    pieces = ["a</w>", *(f"{number}</w>" for number in range(10)), "b</w>", "c</w>"]
    pieces += ["b", "ba</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = keras_hub.models.CLIPTokenizer(
        vocabulary={piece: index for index, piece in enumerate(pieces)},
        merges=["b a</w>"],
    )
    packer = keras_hub.layers.StartEndPacker(
        sequence_length=8,
        start_value=tokenizer.start_token_id,
        end_value=tokenizer.end_token_id,
        pad_value=tokenizer.pad_token_id,
    )
    dataset = pipeline.training_batches(
        ten, lambda texts: packer(tokenizer(texts)), crop_size=16, batch_size=10
    )
    assert dataset.element_spec["token_ids"] == tf.TensorSpec((10, 8), tf.int32)
    token_ids = take(dataset, 1)[0]["token_ids"]
    assert sorted(token_ids[:, 1]) == list(range(1, 11))
    assert (token_ids[:, 0] == tokenizer.start_token_id).all()
    assert (token_ids[:, 3] == tokenizer.end_token_id).all()
