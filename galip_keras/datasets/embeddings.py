"""Text embeddings, computed once by the frozen CLIP and stored beside the records.

`embeddings/SPLIT-KEY/` beside the records holds one TFRecord file per shard. Each entry
is the float16 embeddings `(num_captions, embedding_dim)` of one record, as a serialized
tensor. KEY identifies the weights and the vocabulary that computed them. `index.json`
describes the files and the records that belong together.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from galip_keras.console import progress_bar
from galip_keras.datasets import pipeline
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.text_encoder import embed_texts, text_encoder

_INDEX = "index.json"

# To be increased whenever captions get other tokens than before.
_TOKENS = 2

# Captions embedded at once.
_BATCH_SIZE = 256

_Embed = Callable[[Sequence[bytes]], np.ndarray]


def cache(
    builder: tfds.core.DatasetBuilder,
    clip: FrozenCLIP,
    preprocessor: keras.layers.Layer,
    split: str = "train",
) -> list[str]:
    """Embed the captions of a split, unless they already are.

    A cache of other records, or with a truncated file, is written again.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        clip: a `galip_keras.FrozenCLIP`, computing in float32.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        split: string.

    Returns:
        The paths of the files, one per shard, for `pipeline.training_batches`.

    Raises:
        OSError: If nothing can be written beside the records.
    """
    shards = pipeline.shards(builder, split)
    folder = Path(
        builder.data_path, "embeddings", f"{split}-{_key(clip, preprocessor)}"
    )
    files = [str(folder / Path(shard).name) for shard in shards]
    if not _is_whole(folder, files, shards):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            complete = Path(temporary, "complete")
            complete.mkdir()
            encoder = text_encoder(clip)
            embed = functools.partial(
                embed_texts, encoder, preprocessor, batch_size=_BATCH_SIZE
            )
            _write(complete, builder, shards, embed)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                complete.rename(folder)
            except OSError:
                # Another process that embeds the same captions may have been faster.
                if not _is_whole(folder, files, shards):
                    raise
    return files


def _key(clip: FrozenCLIP, preprocessor: keras.layers.Layer) -> str:
    digest = hashlib.sha256(f"{_TOKENS} {preprocessor.sequence_length}".encode())
    for variable in clip.text_variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    with tempfile.TemporaryDirectory() as vocabulary:
        preprocessor.tokenizer.save_assets(vocabulary)
        for path in sorted(Path(vocabulary).iterdir()):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _is_whole(folder: Path, files: list[str], shards: list[str]) -> bool:
    try:
        index = json.loads((folder / _INDEX).read_text())
        return index == _index(files, shards)
    except (OSError, ValueError):
        return False


def _index(files: list[str], shards: list[str]) -> dict[str, dict[str, list[int]]]:
    """Sizes and times that show whether embeddings and records belong together."""
    return {
        Path(shard).name: {
            "embeddings": [os.path.getsize(file)],
            "records": [os.path.getsize(shard), os.stat(shard).st_mtime_ns],
        }
        for file, shard in zip(files, shards, strict=True)
    }


def _write(
    folder: Path,
    builder: tfds.core.DatasetBuilder,
    shards: list[str],
    embed: _Embed,
) -> None:
    files = [str(folder / Path(shard).name) for shard in shards]
    with progress_bar(
        iterable=shards, desc="Embedding captions", unit=" shards"
    ) as bar:
        for file, shard in zip(files, bar, strict=True):
            with tf.io.TFRecordWriter(file) as writer:
                for embeddings in _of_shard(builder, shard, embed):
                    tensor = tf.io.serialize_tensor(embeddings.astype("float16"))
                    writer.write(tensor.numpy())
    (folder / _INDEX).write_text(json.dumps(_index(files, shards), indent=2))


def _of_shard(
    builder: tfds.core.DatasetBuilder,
    shard: str,
    embed: _Embed,
) -> Iterator[np.ndarray]:
    """Yield the embeddings of each record's captions, embedding many at once."""
    records = pipeline.records(builder, [shard]).as_numpy_iterator()
    counts: list[int] = []
    captions: list[bytes] = []
    for record in records:
        if counts and len(captions) + len(record["captions"]) > _BATCH_SIZE:
            yield from np.split(embed(captions), np.cumsum(counts)[:-1])
            counts, captions = [], []
        counts.append(len(record["captions"]))
        captions.extend(record["captions"])
    if counts:
        yield from np.split(embed(captions), np.cumsum(counts)[:-1])
