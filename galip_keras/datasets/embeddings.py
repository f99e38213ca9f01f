"""Sentence embeddings, computed once by the frozen CLIP and kept beside the records.

`embeddings/KEY/SPLIT/` beside the records holds one TFRecord file a shard of them: an
example after the other, its float16 embeddings `(num_captions, embedding_dim)` as a
serialized tensor. KEY stands for the weights and the vocabulary that they were computed
with. `index.json` says what the files and the records were.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from galip_keras.datasets import pipeline
from galip_keras.models.clip import FrozenCLIP

_INDEX = "index.json"

# Another number where captions get other tokens than before.
_TOKENS = 2

# Captions embedded at once.
_BATCH = 256


def cache(
    builder: tfds.core.DatasetBuilder,
    clip: FrozenCLIP,
    preprocessor: keras.layers.Layer,
    split: str = "train",
) -> list[str]:
    """Embeds the captions of a split, unless that was done before.

    A cache of other records, or with a file that is cut short, is made anew.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        clip: a `galip_keras.FrozenCLIP`, computing in float32.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        split: string.

    Returns:
        The files, one a shard of the records, for `pipeline.training_batches`.

    Raises:
        OSError: where nothing can be written beside the records.
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
            _write(complete, builder, shards, _embedder(clip, preprocessor))
            shutil.rmtree(folder, ignore_errors=True)
            try:
                complete.rename(folder)
            except OSError:
                # Another process that embeds the same captions was faster.
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
    """What tells whether the embeddings are complete and of these records."""
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
    embed: Callable[[list[bytes]], np.ndarray],
) -> None:
    files = [str(folder / Path(shard).name) for shard in shards]
    with tfds.core.utils.tqdm(shards, desc="Embedding captions", unit=" shards") as bar:
        for file, shard in zip(files, bar, strict=True):
            with tf.io.TFRecordWriter(file) as writer:
                for embeddings in _of_shard(builder, shard, embed):
                    tensor = tf.io.serialize_tensor(embeddings.astype("float16"))
                    writer.write(tensor.numpy())
    (folder / _INDEX).write_text(json.dumps(_index(files, shards), indent=2))


def _of_shard(
    builder: tfds.core.DatasetBuilder,
    shard: str,
    embed: Callable[[list[bytes]], np.ndarray],
) -> Iterator[np.ndarray]:
    """The embeddings of each record's captions, which are embedded many at once."""
    records = pipeline.records(builder, [shard]).as_numpy_iterator()
    counts: list[int] = []
    captions: list[bytes] = []
    for record in records:
        if counts and len(captions) + len(record["captions"]) > _BATCH:
            yield from np.split(embed(captions), np.cumsum(counts)[:-1])
            counts, captions = [], []
        counts.append(len(record["captions"]))
        captions.extend(record["captions"])
    if counts:
        yield from np.split(embed(captions), np.cumsum(counts)[:-1])


def _embedder(
    clip: FrozenCLIP, preprocessor: keras.layers.Layer
) -> Callable[[list[bytes]], np.ndarray]:
    token_ids = keras.Input((preprocessor.sequence_length,), dtype="int32")
    model = keras.Model(token_ids, clip.embed_text(token_ids))

    def embed(captions: list[bytes]) -> np.ndarray:
        # Nearly always the same shape, so that one graph does.
        padded = [*captions, *[b""] * (-len(captions) % _BATCH)]
        embeddings = model.predict_on_batch(np.asarray(preprocessor(padded)))
        return embeddings[: len(captions)]

    return embed
