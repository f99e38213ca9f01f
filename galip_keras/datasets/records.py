"""The common part of all datasets: records of an image and its captions.

A builder finds images and captions. This module decodes, checks and stores them, and
accounts for what it leaves out.
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

from galip_keras.console import is_live
from galip_keras.datasets import FOLDER_OPTIONS, summary
from galip_keras.datasets.jpeg import Box, to_jpeg
from galip_keras.images import ImageError, Source
from galip_keras.models.prompts import is_too_long

# Images in flight. This bounds the memory, whatever the size of the dataset.
_CHUNK = 64
_MAX_THREADS = 8

# If more than this fraction is left out, something is wrong.
_BAD_FRACTION = 0.01


class Skipped(defaultdict[str, list[str]]):
    """Reasons to the names of what is left out for them.

    Attributes:
        num_notes: int. How many of them are no images, such as a licence: their number
            says nothing about the state of the dataset.
    """

    def __init__(self) -> None:
        super().__init__(list)
        self.num_notes = 0


class Record(NamedTuple):
    """An image and its captions, as a builder finds them.

    Attributes:
        name: string. Unique within the split.
        captions: list of strings.
        image: path, bytes of a file, or an `ImageError` that says why there is none.
        box: tuple `(x, y, width, height)` in pixels, the object to crop to, or None.
    """

    name: str
    captions: list[str]
    image: Source | ImageError
    box: Box | None = None


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """The source of a dataset. `name` must be different for each of its states.

    Attributes:
        source: string. A path, the name of a dataset of another library, or empty.
        captions: string. A path, or empty.
        allow_bad: bool. Whether more than 1 % of the images may be left out.
        num_workers: int. Threads that decode images; 0 means the number of cores.
        image_column: string. The column of image names in tables, or empty.
        caption_column: string. The column of captions in tables, or empty.
        caption: string. The caption of all images, or empty.
        caption_from: string. `"folder"` for the names of subfolders as captions, or
            empty.
    """

    source: str = ""
    captions: str = ""
    allow_bad: bool = False
    num_workers: int = 0
    image_column: str = ""
    caption_column: str = ""
    caption: str = ""
    caption_from: str = ""


class CaptionedImages(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Builder of records of captioned images. Subclasses say where they are.

    Subclasses define the class attributes below and `_splits(dl_manager, skipped)`. It
    returns a dict of splits to iterables of `Record`, and adds what it cannot use to
    `skipped`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # tensorflow-datasets has a `coco` of its own.
        super().__init_subclass__(**{"skip_registration": True, **kwargs})

    # Lists every example that was left out, and why.
    REPORT = "left_out.tsv"

    VERSION = tfds.core.Version("1.0.0")

    description = ""
    homepage = ""
    license = ""
    citation = ""

    # The files that may be downloaded. With None, tensorflow-datasets 4.9.10 looks for
    # a file of checksums with importlib_resources, which it does not install.
    url_infos: dict[str, Any] | None = None

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> Config:
        """The configuration of a dataset.

        Args:
            name: string. A key of `galip_keras.datasets.DATASETS`.
            source: string. What follows the colon, or empty.
            **options: other fields of `Config`.

        Raises:
            ValueError: If the source or an option makes no sense for this dataset.
            OSError: If the source does not exist.
        """
        for option in ("captions", *FOLDER_OPTIONS):
            if options.get(option) and option not in cls.takes:
                raise ValueError(
                    f"{cls.name} has its own captions: leave out `{option}`"
                )
        return Config(name=name, source=source, **options)

    # The options about captions that mean something for this dataset.
    takes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, config: Config, data_dir: str | os.PathLike[str] | None
    ) -> CaptionedImages:
        """The builder of a configuration in a `data_dir`."""
        with _quiet():
            return cls(config=config, data_dir=data_dir)

    def prepare(self, beam_runner: str | None = None) -> CaptionedImages:
        """Prepare the records, unless they exist, and return a builder of them.

        They appear in a single rename: completely or not at all.

        Args:
            beam_runner: string. As for `galip_keras.datasets.prepare`.

        Raises:
            ValueError: If too few images can be used.
            OSError: If files are missing or nothing can be written.
        """
        if self.data_path.exists():
            return self
        with _quiet():
            try:
                self.download_and_prepare(
                    download_config=self._download_config(beam_runner)
                )
            except OSError as error:
                # The rename fails if another process has prepared the same records in
                # the meantime.
                if not self.data_path.exists():
                    self._check_root(error)
                    raise
            except RuntimeError as error:
                # tensorflow-datasets turns a full disk into this.
                full = os.strerror(errno.ENOSPC)
                if full not in str(error):
                    raise
                raise OSError(errno.ENOSPC, full, str(self._data_dir_root)) from error
        # A new builder reads its metadata from disk.
        builder = self.open(self.builder_config, self._data_dir_root)
        builder._write_report()
        return builder

    def _check_root(self, error: OSError) -> None:
        """Raise an error that says what to do if datasets cannot be stored."""
        root = str(self._data_dir_root)
        if not os.path.isdir(root) and str(error.filename).startswith(root):
            raise OSError(
                f"datasets cannot be stored in {root} ({error.strerror}): choose "
                "another `data_dir`"
            ) from error

    def _download_config(self, beam_runner: str | None):
        if beam_runner:
            raise ValueError(
                f"{self.name} is not prepared on Apache Beam: leave out `beam_runner`"
            )
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
            # Filled while the examples are generated, and saved with the records.
            metadata=tfds.core.MetadataDict(
                skipped={}, long_captions=[], note="", source=self.builder_config.source
            ),
        )

    def _split_generators(self, dl_manager):
        skipped = Skipped()
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
        """Yield key and example of every usable record, and list the others."""
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
            if any(map(is_too_long, captions)):
                long_captions.append(record.name)
            # As bytes, because the name of a file need not be UTF-8.
            name = os.fsencode(record.name)
            yield name, {"image": image, "captions": captions, "id": name}

    def _check_split(self, split: str, used: int) -> None:
        """Raise an error if too few records of a split, now complete, are used."""
        skipped = self.info.metadata["skipped"]
        if not used:
            raise ValueError(
                f"no usable images for {split} in {self._source}: "
                f"{summary.reasons(skipped)}"
            )
        self._used += used
        self._check_fraction(skipped)

    _used = 0

    @property
    def _source(self) -> str:
        return self.builder_config.source or self.name

    def _check_fraction(self, skipped: Skipped) -> None:
        bad = sum(map(len, skipped.values())) - skipped.num_notes
        if self.builder_config.allow_bad or bad <= _BAD_FRACTION * (self._used + bad):
            return
        raise ValueError(
            f"{bad} of {self._used + bad} images in {self._source} cannot be used: "
            f"{summary.reasons(skipped)}. Repair them, or leave them out with "
            "`allow_bad`"
        )

    def _read(
        self, records: Iterable[Record]
    ) -> Iterator[tuple[Record, Future[bytes]]]:
        """Yield every record with its JPEG, which a thread makes."""
        workers = self.builder_config.num_workers
        workers = workers or min(os.cpu_count() or 1, _MAX_THREADS)
        with ThreadPoolExecutor(workers) as pool:
            for chunk in _chunks(records):
                with warnings.catch_warnings():
                    # Pillow warns about images that are skipped or fine anyway.
                    warnings.simplefilter("ignore")
                    futures = [pool.submit(self._jpeg, record) for record in chunk]
                    for future in futures:
                        future.exception()
                yield from zip(chunk, futures, strict=True)

    def _jpeg(self, record: Record) -> bytes:
        if isinstance(record.image, ImageError):
            raise record.image
        return to_jpeg(record.image, record.box)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    yield chunk


def _clean(captions: list[str]) -> list[str]:
    # JSON can contain half of a surrogate pair, but UTF-8 text cannot.
    texts = (text.encode("utf-8", "replace").decode().strip() for text in captions)
    return [text for text in texts if text]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what tensorflow-datasets prints and logs, except its progress bars.

    They are drawn one in another by moving the cursor, so a log file has none.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    if not is_live():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
