"""Read the shards that img2dataset writes. There are two formats:

- WebDataset: tar files like `00000.tar`, with members like `000000000.jpg` (or `.png`,
  `.webp`), `000000000.txt` and `000000000.json` one after another.
- TFRecord: files like `00000.tfrecord` of examples with the features `key`, `jpg` (or
  `png`, `webp`), `txt` and one feature per column of metadata. TensorFlow reads these
  from its own file systems.

The caption is the text, or else `caption` in the metadata.

Shards are streamed. A damaged shard is used up to the damage. A TFRecord file that is
truncated between two records looks like a complete one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO

import tensorflow as tf
from etils import epath
from google.protobuf.message import DecodeError

from galip_keras.datasets.records import Record
from galip_keras.images import SUFFIXES, ImageError

# Images of the web are smaller, and 64 of them are in memory at a time.
_MAX_MEGABYTES = 32

# The parts of one example: extension, or name of a feature, to its content, or to the
# reason why there is none.
_Parts = dict[str, bytes | ImageError]


class _DamagedShardError(Exception):
    """A shard that cannot be read any further."""


@contextlib.contextmanager
def in_one_line(path: epath.Path) -> Iterator[None]:
    """Turn TensorFlow's errors about files into an `OSError` of one line."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0]
        raise OSError(f"{path} cannot be read: {reason}") from error


def read(shards: Iterable[epath.Path]) -> Iterator[Record]:
    """Yield the records of shards, one for each example and one for each damage."""
    for shard in shards:
        with in_one_line(shard):
            yield from _read_shard(shard)


def _read_shard(shard: epath.Path) -> Iterator[Record]:
    examples = _tar_examples if shard.suffix == ".tar" else _tfrecord_examples
    keys = set()
    try:
        for key, parts in examples(shard):
            name = f"{shard.stem}/{key}"
            if key in keys:
                yield Record(name, [], ImageError("id occurs twice"))
            else:
                keys.add(key)
                yield _record(name, parts)
    except _DamagedShardError:
        yield Record(shard.name, [], ImageError("shard is truncated or damaged"))


def _record(name: str, parts: _Parts) -> Record:
    try:
        image = _image(parts)
        return Record(name, [_caption(parts)], image)
    except ImageError as error:
        return Record(name, [], error)


def _image(parts: _Parts) -> bytes:
    for extension, content in parts.items():
        if f".{extension}" in SUFFIXES:
            return _content(content)
    raise ImageError("no image")


def _caption(parts: _Parts) -> str:
    for name in ("txt", "caption"):
        if name in parts:
            try:
                return _content(parts[name]).decode()
            except UnicodeDecodeError as error:
                raise ImageError("caption is not UTF-8") from error
    if "json" not in parts:
        raise ImageError("no caption")
    try:
        caption = json.loads(_content(parts["json"]))["caption"]
    except (ValueError, RecursionError, TypeError, LookupError):
        caption = None
    if not isinstance(caption, str):
        raise ImageError("no caption")
    return caption


def _content(content: bytes | ImageError) -> bytes:
    if isinstance(content, ImageError):
        raise content
    return content


def _too_large(size: int) -> ImageError | None:
    if size > _MAX_MEGABYTES * 10**6:
        return ImageError(f"over {_MAX_MEGABYTES} MB")
    return None


def _tar_examples(shard: epath.Path) -> Iterator[tuple[str, _Parts]]:
    key = ""
    parts: _Parts = {}
    try:
        with shard.open("rb") as file:
            for member, extension, content in _members(file):
                if parts and (member != key or extension in parts):
                    yield key, parts
                    parts = {}
                key = member
                parts[extension] = content
    except tarfile.TarError as error:
        # If the last example is not complete, the damage took the rest of it.
        if not isinstance(_record(key, parts).image, ImageError):
            yield key, parts
        raise _DamagedShardError from error
    if parts:
        yield key, parts


def _members(file: IO[bytes]) -> Iterator[tuple[str, str, bytes | ImageError]]:
    """Yield key, extension and content of every file in a tar stream."""
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            # The archive would keep them all.
            archive.members.clear()  # type: ignore[attr-defined]
            folder, slash, name = member.name.removeprefix("./").rpartition("/")
            stem, _, extension = name.partition(".")
            if stem and not member.isdir():
                content = _member_content(archive, member)
                yield f"{folder}{slash}{stem}", extension.lower(), content


def _member_content(
    archive: tarfile.TarFile, member: tarfile.TarInfo
) -> bytes | ImageError:
    if error := _too_large(member.size):
        return error
    file = archive.extractfile(member) if member.isreg() else None
    return ImageError("not a regular file") if file is None else file.read()


class _Member(tarfile.TarInfo):
    """A member of an archive that must be complete.

    `TarFile` takes a damaged or missing header for the end of the archive, except for
    the first one.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError) as error:
            raise tarfile.ReadError(str(error)) from error


def _tfrecord_examples(shard: epath.Path) -> Iterator[tuple[str, _Parts]]:
    try:
        lines = tf.data.TFRecordDataset(os.fspath(shard)).as_numpy_iterator()
        for number, line in enumerate(lines):
            yield _features(number, line)
    except tf.errors.DataLossError as error:
        raise _DamagedShardError from error


def _features(number: int, line: bytes) -> tuple[str, _Parts]:
    try:
        features = tf.train.Example.FromString(line).features.feature
    except DecodeError:
        return f"record {number}", {"jpg": ImageError("cannot be read")}
    values = {
        name: feature.bytes_list.value[0]
        for name, feature in features.items()
        if feature.bytes_list.value
    }
    key = os.fsdecode(values.pop("key", f"record {number}".encode()))
    return key, {
        name: _too_large(len(value)) or value for name, value in values.items()
    }
