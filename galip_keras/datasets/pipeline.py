"""Read prepared records, as an endless stream of training batches or in order."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from galip_keras import backend
from galip_keras.datasets.mismatches import mismatched

backend.hide_gpus_from_tensorflow()

# An image is resized to 76/64 of the crop, so that crops differ.
_RESIZE = (76, 64)

# Factors by which a JPEG decoder can shrink at almost no cost.
_RATIOS = (1, 2, 4, 8)

# Batches that are prepared ahead, and images that are decoded in parallel.
_PREFETCH = 4
_CPUS = os.cpu_count() or 1

# Files that a pass reads in turn, so that distant records mix.
_SHARDS_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """What training batches contain, and which of them to make.

    Args:
        crop_size: int. Height and width of the images in pixels. Before cropping, the
            shorter side is resized to 76/64 of it.
        batch_size: int. A smaller dataset is repeated within a batch.
        seed: int.
        split: string. The split to read.
        shuffle_buffer: int. Records in the shuffle buffer, about 20 kB each.
        skip: int. Batches to skip at the start when training resumes. Skipping whole
            passes is free; the remaining records are read, but not decoded.
        embeddings: sequence of paths that `embeddings.cache` returned. The batches then
            have `"text_embeddings"`, float32 `(batch_size, embedding_dim)`, instead of
            token ids.
        latent_dim: int. The size of the noise per image. The batches then have
            `"noise"`, float32 `(batch_size, latent_dim)`, standard normal.
        augmentation: int. The number of uniform numbers that the augmentation of an
            image takes. The batches then have `"augmentation"`, float32
            `(batch_size, 2, augmentation)` in [0, 1), for the real and the generated
            image.
        hard_mismatches: float. The share of images whose mismatched caption, for the
            discriminator, is their own caption made wrong in a detail by
            `mismatches.contradict`. The others get the next caption of the batch. If
            it is not 0, the batches have `"mismatched_token_ids"`, of the shape of the
            token ids.
        host: tuple `(index, count)`. If `count` processes train together, this one gets
            its `batch_size` of the `count * batch_size` images of each step.
    """

    crop_size: int
    batch_size: int
    seed: int = 0
    split: str = "train"
    shuffle_buffer: int = 8192
    skip: int = 0
    embeddings: Sequence[str] | None = None
    latent_dim: int | None = None
    augmentation: int | None = None
    hard_mismatches: float = 0.0
    host: tuple[int, int] = (0, 1)


def training_batches(
    builder: tfds.core.DatasetBuilder,
    preprocessor: Callable[[tf.Tensor], tf.Tensor],
    **settings: Any,
) -> tf.data.Dataset:
    """Endless batches of randomly cropped and flipped images with a caption each.

    Each pass over the data has its own order. All randomness derives from `seed`: the
    same arguments give the same stream.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        preprocessor: callable. Maps captions, a string tensor `(batch_size,)`, to
            token ids `(batch_size, sequence_length)` inside a `tf.data` map.
        **settings: the fields of `BatchConfig`. `crop_size` and `batch_size` are
            required.

    Returns:
        A `tf.data.Dataset` of dicts with `"images"`, float32
        `(batch_size, crop_size, crop_size, 3)` in [-1, 1], `"token_ids"`, int32
        `(batch_size, sequence_length)`, and what the settings add.

    Raises:
        ValueError: If there is no such split.
    """
    config = BatchConfig(**settings)
    index, hosts = config.host
    first = config.skip * config.batch_size * hosts
    passes, position = divmod(first, num_examples(builder, config.split))

    def is_own(number, _):
        return number // config.batch_size % hosts == index

    dataset = tf.data.Dataset.range(passes, tf.int64.max)
    dataset = dataset.flat_map(functools.partial(_shuffled, builder, config))
    dataset = dataset.skip(position).enumerate(first).filter(is_own)
    dataset = _map(dataset, functools.partial(_training_example, config))
    dataset = dataset.batch(config.batch_size, drop_remainder=True)
    if config.hard_mismatches:
        dataset = _map(
            dataset, functools.partial(_with_mismatches, config, preprocessor)
        )
    if config.embeddings is None:
        finish = functools.partial(_with_token_ids, config, preprocessor)
    else:
        dim = _embedding_dim(builder, config)
        finish = functools.partial(_with_text_embeddings, config, dim)
    dataset = _map(dataset, finish)
    # Without the autotuner: it sleeps longer and longer, and `fit` does not return
    # before it wakes up.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(_PREFETCH).with_options(options)


def _shuffled(builder, config, epoch):
    """The records of one pass, in random order."""
    # For this function's graph only: shuffle() would mix in the global seed.
    tf.compat.v1.set_random_seed(1)
    # The order of a pass follows from its number, so that passes can be skipped.
    order = tf.random.stateless_uniform(
        [], (config.seed, epoch), minval=None, maxval=None, dtype=tf.int64
    )
    files = shards(builder, config.split)
    buffer = min(config.shuffle_buffer, num_examples(builder, config.split))
    return records(builder, files, config.embeddings, order).shuffle(
        buffer, seed=order, reshuffle_each_iteration=False
    )


def _training_example(config, number, record):
    """A random uint8 crop, one of the captions, and the random numbers of a step."""
    seed = (config.seed, number)
    crop_seed, flip_seed, text_seed = tf.unstack(tf.random.split(tf.stack(seed), 3))
    image = _random_crop(record["image"], config.crop_size, crop_seed)
    captions = record["captions"]
    choice = tf.random.stateless_uniform(
        [], text_seed, maxval=tf.shape(captions)[0], dtype=tf.int32
    )
    example = {
        "images": tf.image.stateless_random_flip_left_right(image, seed=flip_seed),
        "texts": record.get("embeddings", captions)[choice],
    }
    if config.hard_mismatches:
        example.update(captions=captions[choice], numbers=number)
    # Random numbers are part of the batch: there is no generator whose state must be
    # saved, and devices can share a step.
    if config.latent_dim is not None:
        example["noise"] = _normal(seed, config.latent_dim)
    if config.augmentation is not None:
        example["augmentation"] = _uniform(seed, (2, config.augmentation))
    return example


def _with_mismatches(config, preprocessor, batch):
    def write(captions, numbers):
        texts = [caption.decode() for caption in captions]
        wrong = mismatched(texts, config.hard_mismatches, config.seed, numbers)
        return np.array(wrong, object)

    inputs = [batch.pop("captions"), batch.pop("numbers")]
    texts = tf.numpy_function(write, inputs, tf.string)
    token_ids = _token_ids(config, preprocessor, texts)
    return {**batch, "mismatched_token_ids": token_ids}


def _with_token_ids(config, preprocessor, batch):
    token_ids = _token_ids(config, preprocessor, batch.pop("texts"))
    return {**_scaled(batch), "token_ids": token_ids}


def _token_ids(config, preprocessor, texts):
    texts = tf.ensure_shape(texts, (config.batch_size,))
    # keras-hub's tokenizers lose the batch size.
    token_ids = tf.ensure_shape(preprocessor(texts), (config.batch_size, None))
    return tf.cast(token_ids, tf.int32)


def _with_text_embeddings(config, embedding_dim, batch):
    shape = (config.batch_size, embedding_dim)
    embeddings = tf.ensure_shape(batch.pop("texts"), shape)
    return {**_scaled(batch), "text_embeddings": tf.cast(embeddings, tf.float32)}


def _scaled(batch):
    images = tf.cast(batch["images"], tf.float32) / 127.5 - 1.0
    return {**batch, "images": images}


def _embedding_dim(builder, config):
    files = shards(builder, config.split)
    (first,) = records(builder, files[:1], config.embeddings[:1]).take(1)
    return first["embeddings"].shape[-1]


def num_examples(builder: tfds.core.DatasetBuilder, split: str = "train") -> int:
    """The number of images in a split.

    Raises:
        ValueError: If there is no such split.
    """
    if split not in builder.info.splits:
        splits = ", ".join(builder.info.splits)
        raise ValueError(f"there is no split {split!r}: choose from {splits}")
    return builder.info.splits[split].num_examples


def fixed_images(
    builder: tfds.core.DatasetBuilder, n: int, size: int, split: str = "train"
) -> tuple[np.ndarray, list[str]]:
    """The first `n` images and their first captions, always the same.

    The captions are repeated if there are fewer than `n` images.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        n: int.
        size: int. As for `images`.
        split: string.

    Returns:
        A tuple of a uint8 array `(min(n, num_examples), size, size, 3)` and a list of
        `n` captions.

    Raises:
        ValueError: If there is no such split.
    """
    pairs = images(builder, size, split).take(n).as_numpy_iterator()
    first, captions = zip(*pairs)
    texts = itertools.cycle(caption.decode() for caption in captions)
    return np.stack(first), list(itertools.islice(texts, n))


def images(
    builder: tfds.core.DatasetBuilder, size: int, split: str = "train"
) -> tf.data.Dataset:
    """The images of a split in order, as central squares, with their first captions.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        size: int. Height and width of the squares in pixels. The shorter side of an
            image is resized to it.
        split: string.

    Returns:
        A `tf.data.Dataset` of pairs: a uint8 tensor `(size, size, 3)` and a string.

    Raises:
        ValueError: If there is no such split.
    """

    def central_square(record):
        image = _decode(record["image"], size)
        top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
        image = image[top : top + size, left : left + size]
        return tf.ensure_shape(image, (size, size, 3)), record["captions"][0]

    return _map(records(builder, shards(builder, split)), central_square)


def shards(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    """The files of a split, in order.

    Raises:
        ValueError: If there is no such split.
    """
    num_examples(builder, split)
    return [str(path) for path in builder.info.splits[split].filepaths]


def records(
    builder: tfds.core.DatasetBuilder,
    files: Sequence[str],
    embeddings: Sequence[str] | None = None,
    order: tf.Tensor | None = None,
) -> tf.data.Dataset:
    """Stored records: dicts of `image` (JPEG bytes), `captions` and `id`.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        files: sequence of paths, from `shards`.
        embeddings: sequence of paths that `embeddings.cache` returned, one per file.
            The records then have `embeddings`, float16 `(num_captions, embedding_dim)`.
        order: int64 scalar. The seed of a random order of files, several of which are
            read in turn. Defaults to one file after the other.
    """
    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(serialized):
        return builder.info.features.deserialize_example(serialized, decoders=decoders)

    def parse_both(serialized, tensor):
        return {**parse(serialized), "embeddings": tf.io.parse_tensor(tensor, "half")}

    def read(*paths):
        files = tuple(tf.data.TFRecordDataset(path) for path in paths)
        return files[0] if embeddings is None else tf.data.Dataset.zip(*files)

    paths = (list(files),) if embeddings is None else (list(files), list(embeddings))
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    if order is None:
        dataset = dataset.flat_map(read)
    else:
        dataset = dataset.shuffle(len(files), order, reshuffle_each_iteration=False)
        dataset = dataset.interleave(read, cycle_length=_SHARDS_AT_ONCE)
    return dataset.map(parse if embeddings is None else parse_both)


def _map(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    return dataset.map(function, num_parallel_calls=_CPUS, deterministic=True)


def _normal(seed, size):
    seed = tf.random.fold_in(tf.stack(seed), 1)
    return tf.random.stateless_normal([size], seed)


def _uniform(seed, shape):
    seed = tf.random.fold_in(tf.stack(seed), 2)
    return tf.random.stateless_uniform(shape, seed)


def _random_crop(jpeg, crop_size, seed):
    numerator, denominator = _RESIZE
    shorter_side = round(crop_size * numerator / denominator)
    return _decode_crop(jpeg, shorter_side, crop_size, seed)


def _decode_crop(jpeg, shorter_side, crop_size, seed):
    """A random crop of an image whose shorter side is resized to `shorter_side`."""
    shape = tf.io.extract_jpeg_shape(jpeg)[:2]

    def crop_while_decoding():
        # The common case, the stored size: only the crop is decoded.
        window = tf.concat([_corner(shape, crop_size, seed), [crop_size] * 2], 0)
        return tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)

    def crop_after_resizing():
        image = _decode(jpeg, shorter_side)
        top, left = tf.unstack(_corner(tf.shape(image)[:2], crop_size, seed))
        return image[top : top + crop_size, left : left + crop_size]

    image = tf.cond(
        tf.reduce_min(shape) == shorter_side, crop_while_decoding, crop_after_resizing
    )
    return tf.ensure_shape(image, (crop_size, crop_size, 3))


def _corner(shape, crop_size, seed):
    """The upper left corner of a random crop."""
    places = shape - crop_size + 1
    numbers = tf.random.stateless_uniform([2], seed, maxval=2**31 - 1, dtype=tf.int32)
    return numbers % places


def _decode(jpeg, shorter_side):
    """Decode to uint8 `(height, width, 3)` with the given shorter side."""
    stored = tf.reduce_min(tf.io.extract_jpeg_shape(jpeg)[:2])
    decoders = [
        lambda ratio=ratio: tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio)
        for ratio in _RATIOS
    ]
    large_enough = tf.constant(_RATIOS[1:]) * shorter_side <= stored
    image = tf.switch_case(
        tf.math.count_nonzero(large_enough, dtype=tf.int32), decoders
    )
    size = tf.shape(image)[:2]
    return tf.cond(
        tf.reduce_min(size) == shorter_side,
        lambda: image,
        lambda: _resize(image, size * shorter_side // tf.reduce_min(size)),
    )


def _resize(image, size):
    image = tf.image.resize(image, size, method="bilinear", antialias=True)
    # Back to bytes, as image libraries resize: a crop of bytes is cheap.
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
