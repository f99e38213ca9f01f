"""What all data sets here have in common: a picture, its captions, and records of them.

A builder says where its pictures and captions are; this module decodes, checks and
stores them, and keeps account of what it had to leave out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from absl import logging

from galip_keras.datasets import summary
from galip_keras.datasets.images import Box, ImageError, Source, to_jpeg

# Pictures in flight. It bounds the memory taken, whatever the size of the data set.
_CHUNK = 64
_MAX_THREADS = 8

# More than this left out is no accident.
_BAD_SHARE = 0.01

# Reason to the names of the pictures that are left out for it.
Skipped = defaultdict[str, list[str]]


class Record(NamedTuple):
    """A picture and its captions, as a builder finds them.

    `name` tells it apart within its split, `captions` are at least one, `picture` is a
    path, the bytes of a file or a reason, as a `ImageError`, why there is none; `box`
    is what to crop first, `(x, y, width, height)` in pixels.
    """

    name: str
    captions: list[str]
    picture: Source | ImageError
    box: Box | None = None


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """Where a data set comes from. `name` must tell apart all its states.

    `source` and `captions` are paths or empty. More than 1 % left out is an error
    unless `allow_bad`. `num_workers` threads decode pictures; 0 stands for the cores.
    """

    source: str = ""
    captions: str = ""
    allow_bad: bool = False
    num_workers: int = 0


class CaptionedImages(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Builder of records of pictures with captions. Subclasses say where they are.

    They define `_splits(dl_manager, skipped)`, which returns a dict of split to an
    iterable of `Record` and adds to `skipped` what is already known to be unusable, and
    the class attributes below.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # tensorflow-datasets has a `coco` of its own.
        super().__init_subclass__(**{"skip_registration": True, **kwargs})

    # Written beside the records: every example that was left out, and why.
    REPORT = "left_out.tsv"

    VERSION = tfds.core.Version("1.0.0")

    description = ""
    homepage = ""
    license = ""
    citation = ""

    # What may be downloaded. tensorflow-datasets 4.9.10 would else look for a file of
    # checksums by way of importlib_resources, which it does not install.
    url_infos: dict[str, Any] | None = None

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> Config:
        """The configuration of a data set.

        Args:
            name: string. A key of `galip_keras.datasets.DATASETS`.
            source: string. What stands behind the colon, or nothing.
            **options: other fields of `Config`.

        Raises:
            ValueError: where the source or an option makes no sense here.
            OSError: where the source does not exist.
        """
        if options.get("captions") and not cls.takes_captions:
            raise ValueError(f"{cls.name} has captions of its own: leave yours out")
        return Config(name=name, source=source, **options)

    takes_captions = False

    @classmethod
    def open(cls, config: Config, data_dir) -> CaptionedImages:
        """The builder of a configuration in a `data_dir`."""
        with _quiet():
            return cls(config=config, data_dir=data_dir)

    def prepare(self, beam_runner: str | None = None) -> CaptionedImages:
        """Prepares the records, unless they are there. Returns a builder of them.

        They appear by one renaming: complete or not at all.

        Args:
            beam_runner: string. As for `galip_keras.datasets.prepare`.

        Raises:
            ValueError: where too little can be used.
            OSError: where files are missing or nothing can be written.
        """
        if self.data_path.exists():
            return self
        with _quiet():
            try:
                self.download_and_prepare(
                    download_config=self._download_config(beam_runner)
                )
            except OSError as error:
                # The renaming fails where another process has prepared the same records
                # in the meantime.
                if not self.data_path.exists():
                    self._check_root(error)
                    raise
            except RuntimeError as error:
                # What tensorflow-datasets makes of it.
                full = os.strerror(errno.ENOSPC)
                if full not in str(error):
                    raise
                raise OSError(errno.ENOSPC, full, str(self._data_dir_root)) from error
        # What was read from the disk now, and not what was on the way there.
        builder = self.open(self.builder_config, self._data_dir_root)
        builder._write_report()
        return builder

    def _check_root(self, error: OSError) -> None:
        """Says what to do where data sets cannot be kept in their place."""
        root = str(self._data_dir_root)
        if not os.path.isdir(root) and str(error.filename).startswith(root):
            raise OSError(
                f"data sets cannot be kept in {root} ({error.strerror}): give another "
                "`data_dir`"
            ) from error

    def _download_config(self, beam_runner: str | None):
        if beam_runner:
            raise ValueError(f"{self.name} is not prepared by Apache Beam")
        return tfds.download.DownloadConfig(try_download_gcs=False)

    def _write_report(self) -> None:
        lines = [
            f"{reason}\t{name}"
            for reason, names in self.info.metadata["skipped"].items()
            for name in names
        ]
        # As bytes, because the name of a file need not be UTF-8.
        text = os.fsencode("".join(f"{line}\n" for line in lines))
        (self.data_path / self.REPORT).write_bytes(text)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            homepage=self.homepage or None,
            license=self.license or None,
            citation=self.citation or None,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "id": tfds.features.Text(),
                }
            ),
            # Filled while the examples are generated, saved with the records.
            metadata=tfds.core.MetadataDict(
                skipped={}, long_captions=[], note="", source=self.builder_config.source
            ),
        )

    def _split_generators(self, dl_manager):
        skipped: Skipped = defaultdict(list)
        self.info.metadata["skipped"] = skipped
        splits = self._splits(dl_manager, skipped)
        return {
            split: self._generate_examples(split, records)
            for split, records in splits.items()
        }

    def _splits(self, dl_manager, skipped: Skipped) -> dict[str, Iterable[Record]]:
        raise AttributeError(f"{type(self).__name__} defines no _splits()")

    def _generate_examples(self, split: str, records: Iterable[Record]):
        metadata = self.info.metadata
        used = 0
        for example in self._examples(
            records, metadata["skipped"], metadata["long_captions"]
        ):
            yield example
            used += 1
        self._check_split(split, used)

    def _examples(
        self, records: Iterable[Record], skipped: Skipped, long_captions: list[str]
    ) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yields key and example of every usable record, and lists the others."""
        for record, future in self._read(records):
            try:
                image = future.result()
            except ImageError as error:
                skipped[str(error)].append(record.name)
                continue
            captions = _clean(record.captions)
            if not captions:
                skipped["blank caption"].append(record.name)
                continue
            if max(map(len, captions)) > summary.LONG_CAPTION:
                long_captions.append(record.name)
            # As bytes, because the name of a file need not be UTF-8.
            name = os.fsencode(record.name)
            yield name, {"image": image, "captions": captions, "id": name}

    def _check_split(self, split: str, used: int) -> None:
        """Raises an error where too few records of a split, now complete, are used."""
        skipped = self.info.metadata["skipped"]
        if not used:
            raise ValueError(
                f"nothing usable for {split} in {self._source}: "
                f"{summary.reasons(skipped)}"
            )
        self._used += used
        self._check_share(skipped)

    _used = 0

    @property
    def _source(self) -> str:
        return self.builder_config.source or self.name

    def _check_share(self, skipped: Skipped) -> None:
        bad = sum(map(len, skipped.values()))
        if self.builder_config.allow_bad or bad <= _BAD_SHARE * (self._used + bad):
            return
        raise ValueError(
            f"{bad} of {self._used + bad} pictures in {self._source} cannot be used: "
            f"{summary.reasons(skipped)}. Repair them, or leave them out "
            "with `allow_bad`"
        )

    def _read(
        self, records: Iterable[Record]
    ) -> Iterator[tuple[Record, Future[bytes]]]:
        """Yields every record with its JPEG, each picture decoded once, by a thread."""
        workers = self.builder_config.num_workers
        workers = workers or min(os.cpu_count() or 1, _MAX_THREADS)
        with ThreadPoolExecutor(workers) as pool:
            for chunk in _chunks(records):
                with warnings.catch_warnings():
                    # Pillow's, about pictures that are skipped or fine all the same.
                    warnings.simplefilter("ignore")
                    futures = [pool.submit(self._jpeg, record) for record in chunk]
                    for future in futures:
                        future.exception()
                yield from zip(chunk, futures, strict=True)

    def _jpeg(self, record: Record) -> bytes:
        if isinstance(record.picture, ImageError):
            raise record.picture
        return to_jpeg(record.picture, record.box)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    yield chunk


def _clean(captions: list[str]) -> list[str]:
    # JSON can hold half of a surrogate pair, which no UTF-8 text can.
    texts = (text.encode("utf-8", "replace").decode().strip() for text in captions)
    return [text for text in texts if text]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what tensorflow-datasets prints and logs; its progress bar stays."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
