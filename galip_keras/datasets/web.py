"""Pictures of the web and their captions, as img2dataset fetches and writes them.

What it wrote lies in a folder or, unverified so far, in a bucket: `gs://` or another
path that `etils.epath` opens. It is in one of two formats:

- WebDataset, tar files like `00000.tar` with members like `000000000.jpg` (or `.png`,
  `.webp`), `000000000.txt` and `000000000.json`, one after another;
- TFRecord files like `00000.tfrecord` of examples with the features `key`, `jpg` (or
  `png`, `webp`), `txt` and a feature for every column of metadata. TensorFlow's own
  file systems read these.

The caption is the text or, without one, `caption` in the metadata. Subfolders `train`
and `validation` (or `val`), each with shards, become splits. Without them everything is
`train`. All other files are ignored.

Shards are streamed. Of a damaged shard all that comes before the damage is used. A
TFRecord file that ends too early, but between two records, cannot be told from a whole
one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from google.protobuf.message import DecodeError

from galip_keras.datasets import records
from galip_keras.datasets.images import SUFFIXES, ImageError
from galip_keras.datasets.records import Record

_ABOUT = {
    "cc3m": (
        "Conceptual Captions: 3 million pictures of the web and cleaned captions.",
        "https://ai.google.com/research/ConceptualCaptions/",
    ),
    "cc12m": (
        "Conceptual 12M: 12 million pictures of the web and their captions.",
        "https://github.com/google-research-datasets/conceptual-12m",
    ),
}

_SPLITS = {"train": "train", "validation": "validation", "val": "validation"}
_FORMATS = (".tar", ".tfrecord")

# More is no picture of the web, and 64 of them are in memory at a time.
_MAX_MEGABYTES = 32

# Asking a bucket about a file takes a tenth of a second, and there are thousands.
_STAT_THREADS = 16

# What belongs to one key: extension, or name of a feature, to content or why there is
# none.
_Parts = dict[str, bytes | ImageError]


class _DamagedShardError(Exception):
    """A shard whose rest cannot be read."""


class Web(records.CaptionedImages):
    """Builder of the records of img2dataset's shards, as they are now."""

    license = "Pictures: their owners'. Captions: the terms of Google's data set."

    @classmethod
    def configure(cls, name, source, **options):
        if not source:
            raise ValueError(
                f"{name} is fetched by img2dataset and handed in as {name}:PATH: "
                f"img2dataset --url_list {name}.tsv --input_format tsv --url_col url "
                "--caption_col caption --resize_mode keep_ratio --image_size 304 "
                "--output_format webdataset --output_folder PATH"
            )
        path = source if "://" in source else Path(source).expanduser().resolve()
        root = epath.Path(path)
        state = f"{name}-{_fingerprint(_find(root))}"
        return super().configure(state, os.fspath(root), **options)

    def _info(self):
        name, _, _ = self.builder_config.name.partition("-")
        self.description, self.homepage = _ABOUT[name]
        return super()._info()

    def _splits(self, dl_manager, skipped):
        return {split: _read(paths) for split, paths in self._shards().items()}

    def _shards(self) -> dict[str, list[epath.Path]]:
        return _find(epath.Path(self.builder_config.source))

    # By Apache Beam: every shard is read where the runner likes, and what was left out
    # of it comes back as a line of JSON.

    _on_beam = False

    def _download_config(self, beam_runner):
        if not beam_runner:
            return super()._download_config(beam_runner)
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise ValueError(
                "a Beam runner needs Apache Beam: pip install 'galip-keras[beam]'"
            ) from error
        self._on_beam = True
        return tfds.download.DownloadConfig(
            beam_runner=beam_runner,
            # Beam would look for its options among those of the command line.
            beam_options=PipelineOptions(flags=[]),
            try_download_gcs=False,
        )

    def _split_generators(self, dl_manager):
        if not self._on_beam:
            return super()._split_generators(dl_manager)
        return {
            split: self._transform(split, paths)
            for split, paths in self._shards().items()
        }

    def _accounts(self, split: str) -> epath.Path:
        return self.data_path / f"accounts-{split}"

    def _transform(self, split: str, paths: list[epath.Path]):
        """A `beam.PTransform` to the examples of a split."""
        import apache_beam as beam

        def transform(pipeline):
            outputs = (
                pipeline
                | beam.Create([os.fspath(path) for path in paths])
                | beam.Reshuffle()
                | beam.FlatMap(self._prepare_shard).with_outputs(
                    "account", main="examples"
                )
            )
            accounts = os.fspath(self._accounts(split))
            _ = outputs.account | beam.io.WriteToText(accounts)
            return outputs.examples

        return beam.ptransform_fn(transform)()

    def _prepare_shard(self, path: str):
        import apache_beam as beam

        skipped: records.Skipped = defaultdict(list)
        long_captions: list[str] = []
        used = 0
        for example in self._examples(
            _read([epath.Path(path)]), skipped, long_captions
        ):
            yield example
            used += 1
        account = {"used": used, "skipped": skipped, "long_captions": long_captions}
        yield beam.pvalue.TaggedOutput("account", json.dumps(account))

    def _process_pipeline_result(self, pipeline_result):
        """Adds up the accounts of all shards."""
        metadata = self.info.metadata
        skipped = metadata["skipped"] = defaultdict(list)
        for split in self._shards():
            used = 0
            for account in _taken(self._accounts(split)):
                used += account["used"]
                metadata["long_captions"].extend(account["long_captions"])
                for reason, names in account["skipped"].items():
                    skipped[reason].extend(names)
            self._check_split(split, used)


@contextlib.contextmanager
def _in_one_line(path: epath.Path) -> Iterator[None]:
    """Turns TensorFlow's errors about files, which are none of Python's, into these."""
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.partition("\n")[0]
        raise OSError(f"{path} cannot be read: {reason}") from error


def _find(root: epath.Path) -> dict[str, list[epath.Path]]:
    """The shards of every split, `"train"` first."""
    with _in_one_line(root):
        if not root.exists():
            raise FileNotFoundError(
                f"{root} does not exist: give the folder that img2dataset wrote to"
            )
        if not root.is_dir():
            raise ValueError(f"{root} is a file: give the folder that it is in")
        folders = _split_folders(root)
        return {split: _shards(folder) for split, folder in folders.items()}


def _split_folders(root: epath.Path) -> dict[str, epath.Path]:
    found: dict[str, epath.Path] = {}
    for name, split in _SPLITS.items():
        if not (root / name).is_dir():
            continue
        if split in found:
            raise ValueError(f"{root} has both validation and val: keep one")
        found[split] = root / name
    if not found:
        return {"train": root}
    if "train" not in found:
        raise ValueError(f"{root} has {found['validation'].name} but no train folder")
    if any(path.suffix in _FORMATS for path in root.iterdir()):
        raise ValueError(f"{root} has shards beside train: move them into train")
    return found


def _shards(folder: epath.Path) -> list[epath.Path]:
    shards = sorted(path for path in folder.iterdir() if path.suffix in _FORMATS)
    suffixes = {path.suffix for path in shards}
    if not suffixes:
        raise ValueError(
            f"{folder} holds no shards of img2dataset: neither .tar nor .tfrecord files"
        )
    if len(suffixes) > 1:
        raise ValueError(f"{folder} holds both .tar and .tfrecord files: keep one kind")
    return shards


def _fingerprint(shards: dict[str, list[epath.Path]]) -> str:
    """A hash that changes whenever a shard does, in name, size or time of change."""

    def state(path: epath.Path) -> str:
        with _in_one_line(path):
            stat = path.stat()
        return ascii((os.fspath(path), stat.length, stat.mtime))

    digest = hashlib.sha256()
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for paths in shards.values():
            for line in pool.map(state, paths):
                digest.update(line.encode())
    return digest.hexdigest()[:16]


def _taken(accounts: epath.Path) -> Iterator[dict[str, Any]]:
    """Yields what the files say whose names start so, and removes them."""
    for path in accounts.parent.glob(f"{accounts.name}-*"):
        for line in path.read_text().splitlines():
            yield json.loads(line)
        path.unlink()


def _read(shards: Iterable[epath.Path]) -> Iterator[Record]:
    for shard in shards:
        with _in_one_line(shard):
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
        picture = _picture(parts)
        return Record(name, [_caption(parts)], picture)
    except ImageError as error:
        return Record(name, [], error)


def _picture(parts: _Parts) -> bytes:
    for extension, content in parts.items():
        if f".{extension}" in SUFFIXES:
            return _content(content)
    raise ImageError("no picture")


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
        # If it is not whole, the last key is part of what the shard has lost.
        if not isinstance(_record(key, parts).picture, ImageError):
            yield key, parts
        raise _DamagedShardError from error
    if parts:
        yield key, parts


def _members(file: IO[bytes]) -> Iterator[tuple[str, str, bytes | ImageError]]:
    """Yields key, extension and content of every file in a tar file, as it goes by."""
    with tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as archive:
        while (member := archive.next()) is not None:
            # Or else the archive would keep them all.
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
    """A member of an archive that must be whole.

    `TarFile` takes a header that is damaged or missing for the archive's end, unless it
    is the first one.
    """

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
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
