"""Prepared records to an endless stream of training batches (`tf.data`)."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from galip_keras.datasets.mismatches import mismatched

if keras.config.backend() != "tensorflow":
    # TensorFlow only feeds the other backends, yet would take their GPU's memory. It
    # is too late where the caller has used TensorFlow before: then it is theirs.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")

# A picture is resized to 76/64 of the crop, so that crops differ.
_RESIZE = (76, 64)

# What a JPEG decoder can shrink by for next to nothing.
_RATIOS = (1, 2, 4, 8)

# Batches that are made ahead, and pictures at the same time.
_PREFETCH = 4
_CPUS = os.cpu_count() or 1

# A pass reads this many files in turn, which mixes what lies far apart.
_SHARDS_AT_ONCE = 16


def training_batches(
    builder: tfds.core.DatasetBuilder,
    preprocessor: Callable[[tf.Tensor], tf.Tensor],
    *,
    crop_size: int,
    batch_size: int,
    seed: int = 0,
    split: str = "train",
    shuffle_buffer: int = 8192,
    skip: int = 0,
    embeddings: Sequence[str] | None = None,
    latent_dim: int | None = None,
    augmentation: int | None = None,
    hard_mismatches: float = 0.0,
    host: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Endless batches of randomly cropped and flipped pictures with a caption each.

    Each pass over the data is shuffled afresh. Everything random follows from `seed`,
    so the same arguments give the same stream.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        preprocessor: callable. Maps captions, a string tensor `(batch_size,)`, to
            token ids `(batch_size, sequence_length)` inside a `tf.data` map.
        crop_size: int. Height and width of the pictures, in pixels. Before cropping,
            the shorter side is resized to 76/64 of it.
        batch_size: int. A data set may be smaller: it is repeated.
        seed: int. What all random choices derive from.
        split: string. The split to read.
        shuffle_buffer: int. Records in the shuffle buffer, about 20 kB each.
        skip: int. Batches to leave out at the start, as when training resumes. Whole
            passes cost nothing; the rest is read, but not decoded.
        embeddings: sequence of paths. What `embeddings.cache` returned; the batches
            have `"text_embeddings"`, float32 `(batch_size, embedding_dim)`, in place of
            the token ids then.
        latent_dim: int. Size of the noise of a picture. The batches have `"noise"`
            then, float32 `(batch_size, latent_dim)`, standard normal.
        augmentation: int. How many uniform numbers a picture's augmentation takes. The
            batches have `"augmentation"` then, float32 `(batch_size, 2, augmentation)`
            in [0, 1), those of the real and those of the generated picture.
        hard_mismatches: float. The fraction of pictures whose mismatched caption is
            their own, falsified by `mismatches.contradict`. The others get the next
            caption in the batch of this host. Unless it is 0, the batches also have
            `"mismatched_token_ids"`, of the same shape as the token ids.
        host: tuple `(index, count)`. Where `count` processes train together, each
            gets its `batch_size` pictures of the `count * batch_size` of a step.

    Returns:
        A `tf.data.Dataset` of `{"images", "token_ids"}` and what the arguments add:
        float32 `(batch_size, crop_size, crop_size, 3)` in [-1, 1], and int32
        `(batch_size, sequence_length)`.

    Raises:
        ValueError: where there is no such split.
    """
    count = num_examples(builder, split)
    files = shards(builder, split)
    index, hosts = host
    if embeddings is not None:
        (first,) = records(builder, files[:1], embeddings[:1]).take(1)
        embedding_dim = first["embeddings"].shape[-1]
    passes, position = divmod(skip * batch_size * hosts, count)

    def shuffled(epoch):
        # Only of this function's graph: shuffle() would else mix in the global seed.
        tf.compat.v1.set_random_seed(1)
        # A pass is shuffled by its own number, so that passes can be skipped.
        order = tf.random.stateless_uniform(
            [], (seed, epoch), minval=None, maxval=None, dtype=tf.int64
        )
        return records(builder, files, embeddings, order).shuffle(
            min(shuffle_buffer, count), seed=order, reshuffle_each_iteration=False
        )

    def is_own(number, _):
        return number // batch_size % hosts == index

    def example(number, record):
        image, choice = _training_example(record, (seed, number), crop_size)
        sentences = record["captions" if embeddings is None else "embeddings"]
        example = {"images": image, "sentences": sentences[choice]}
        if hard_mismatches:
            example.update(captions=record["captions"][choice], numbers=number)
        # The numbers of a step follow from the pictures in it: it needs no generator
        # whose state would have to be kept, and devices can share it.
        if latent_dim is not None:
            example["noise"] = _normal((seed, number), latent_dim)
        if augmentation is not None:
            example["augmentation"] = _uniform((seed, number), (2, augmentation))
        return example

    def batch(batch):
        sentences = batch.pop("sentences")
        batch["images"] = tf.cast(batch["images"], tf.float32) / 127.5 - 1.0
        if hard_mismatches:
            batch["mismatched_token_ids"] = tokens(mismatches(batch))
        if embeddings is not None:
            sentences = tf.ensure_shape(sentences, (batch_size, embedding_dim))
            return {**batch, "text_embeddings": tf.cast(sentences, tf.float32)}
        return {**batch, "token_ids": tokens(sentences)}

    def tokens(sentences):
        # keras-hub's tokenizers lose the batch size.
        token_ids = tf.ensure_shape(preprocessor(sentences), (batch_size, None))
        return tf.cast(token_ids, tf.int32)

    def mismatches(batch):
        def write(captions, numbers):
            texts = [caption.decode() for caption in captions]
            return np.array(mismatched(texts, hard_mismatches, seed, numbers), object)

        texts = tf.numpy_function(
            write, [batch.pop("captions"), batch.pop("numbers")], tf.string
        )
        return tf.ensure_shape(texts, (batch_size,))

    dataset = tf.data.Dataset.range(passes, tf.int64.max).flat_map(shuffled)
    dataset = dataset.skip(position).enumerate(skip * batch_size * hosts)
    dataset = _map(dataset.filter(is_own), example)
    dataset = _map(dataset.batch(batch_size, drop_remainder=True), batch)
    # Settings are made here, not tuned: the tuner sleeps ever longer from one look to
    # the next, and `fit` waits for it to wake up before it returns.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(_PREFETCH).with_options(options)


def num_examples(builder: tfds.core.DatasetBuilder, split: str = "train") -> int:
    """The number of pictures in a split.

    Raises:
        ValueError: where there is no such split.
    """
    if split not in builder.info.splits:
        splits = ", ".join(builder.info.splits)
        raise ValueError(f"there is no split {split!r}, only {splits}")
    return builder.info.splits[split].num_examples


def fixed_pictures(
    builder: tfds.core.DatasetBuilder, n: int, size: int, split: str = "train"
) -> tuple[np.ndarray, list[str]]:
    """The first `n` pictures and the first caption of each, always the same.

    Where there are fewer pictures, the captions are repeated.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        n: int.
        size: int. Height and width of the pictures, in pixels: the middle of each, its
            shorter side resized to that.
        split: string.

    Returns:
        A tuple of the pictures, a uint8 array `(n or fewer, size, size, 3)`, and a list
        of `n` captions.

    Raises:
        ValueError: where there is no such split.
    """
    images, captions = zip(*pictures(builder, size, split, n).as_numpy_iterator())
    texts = itertools.cycle(caption.decode() for caption in captions)
    return np.stack(images), list(itertools.islice(texts, n))


def pictures(
    builder: tfds.core.DatasetBuilder, size: int, split: str = "train", n: int = -1
) -> tf.data.Dataset:
    """The pictures of a split in order, the middle of each, and their first captions.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        size: int. Height and width, in pixels, to which the shorter side is resized.
        split: string.
        n: int. How many of the first ones, or all.

    Returns:
        A `tf.data.Dataset` of pairs: a uint8 tensor `(size, size, 3)` and a string.

    Raises:
        ValueError: where there is no such split.
    """

    def middle(record):
        image = _decode(record["image"], size)
        top, left = tf.unstack((tf.shape(image)[:2] - size) // 2)
        image = image[top : top + size, left : left + size]
        return tf.ensure_shape(image, (size, size, 3)), record["captions"][0]

    return _map(records(builder, shards(builder, split)).take(n), middle)


def shards(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    """The files of a split, in order.

    Raises:
        ValueError: where there is no such split.
    """
    num_examples(builder, split)
    return [str(path) for path in builder.info.splits[split].filepaths]


def records(
    builder: tfds.core.DatasetBuilder,
    files: Sequence[str],
    embeddings: Sequence[str] | None = None,
    order: tf.Tensor | None = None,
) -> tf.data.Dataset:
    """Records as they are stored: `image` (JPEG bytes), `captions` and `id`.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        files: sequence of paths, from `shards`.
        embeddings: sequence of paths, a file of `embeddings.cache` for each. Its
            records have `embeddings`, float16 `(num_captions, embedding_dim)`, too.
        order: int64 scalar. A seed of the order of the files. Many are read in turn
            then; without it one after the other.
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


def _training_example(record, seed, crop_size):
    """A random uint8 crop `(crop_size, crop_size, 3)` and the number of a caption."""
    crop_seed, flip_seed, caption_seed = tf.unstack(tf.random.split(tf.stack(seed), 3))
    numerator, denominator = _RESIZE
    shorter_side = round(crop_size * numerator / denominator)
    image = _decode_crop(record["image"], shorter_side, crop_size, crop_seed)
    image = tf.image.stateless_random_flip_left_right(image, seed=flip_seed)
    choice = tf.random.stateless_uniform(
        [], caption_seed, maxval=tf.shape(record["captions"])[0], dtype=tf.int32
    )
    return image, choice


def _normal(seed, size):
    seed = tf.random.fold_in(tf.stack(seed), 1)
    return tf.random.stateless_normal([size], seed)


def _uniform(seed, shape):
    seed = tf.random.fold_in(tf.stack(seed), 2)
    return tf.random.stateless_uniform(shape, seed)


def _decode_crop(jpeg, shorter_side, crop_size, seed):
    """A random crop of a picture whose shorter side is resized to `shorter_side`."""
    shape = tf.io.extract_jpeg_shape(jpeg)[:2]

    def crop_while_decoding():
        # As it is stored, which is the common case: only the crop is decoded.
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
    """Decodes to uint8 `(height, width, 3)`, where the lesser is `shorter_side`."""
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
    # Back to whole numbers, as an image library resizes: a crop of bytes is cheap.
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
