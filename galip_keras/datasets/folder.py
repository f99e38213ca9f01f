"""Your own pictures and captions: a tensorflow-datasets builder for a folder.

A folder holds pictures (PNG, JPEG, WebP, GIF, BMP or TIFF; in subfolders too) and
their captions in one of three layouts:

- `metadata.jsonl`, lines like `{"file_name": "a.png", "text": "a red bird"}`, where
  the text may also be a list of captions;
- `metadata.csv` with the columns `file_name` and `text`, where several rows about one
  file are several captions;
- a `name.txt` beside each `name.png`, every line of it a caption.

Subfolders `train`, `test` and `validation` (or `val`, `valid`), each laid out like
this, become splits. Without them everything is `train`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from galip_keras.datasets import layouts, summary
from galip_keras.datasets.pictures import PictureError, to_jpeg

# Pictures in flight. It bounds the memory taken, whatever the size of the folder.
_CHUNK = 64
_MAX_THREADS = 8


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """Which folder: `name` must tell apart all folders and all their states."""

    path: str = ""


class Folder(tfds.core.GeneratorBasedBuilder):
    """Builder of one folder's records. `prepare()` makes it."""

    VERSION = tfds.core.Version("1.0.0")

    # Nothing is downloaded. Without this, tensorflow-datasets 4.9.10 looks for a file
    # of checksums by way of importlib_resources, which it does not install.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures and captions from a folder.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "id": tfds.features.Text(),
                }
            ),
            # Filled while the examples are generated, saved with the records.
            metadata=tfds.core.MetadataDict(skipped={}, long_captions=[]),
        )

    def _split_generators(self, dl_manager):
        skipped: layouts.Skipped = defaultdict(list)
        self.info.metadata["skipped"] = skipped
        splits = layouts.scan(Path(self.builder_config.path), skipped)
        return {
            split: self._generate_examples(split, records)
            for split, records in splits.items()
        }

    def _generate_examples(self, split: str, records: list[layouts.Record]):
        skipped = self.info.metadata["skipped"]
        used = 0
        for record, future in self._read(records):
            try:
                image = future.result()
            except PictureError as error:
                skipped[str(error)].append(record.name)
                continue
            if max(map(len, record.captions)) > summary.LONG_CAPTION:
                self.info.metadata["long_captions"].append(record.name)
            # As bytes, because the name of a file need not be UTF-8.
            name = os.fsencode(record.name)
            yield name, {"image": image, "captions": record.captions, "id": name}
            used += 1
        if not used:
            raise ValueError(
                f"nothing usable for {split} in {self.builder_config.path}: "
                f"{summary.reasons(skipped)}"
            )

    def _read(
        self, records: list[layouts.Record]
    ) -> Iterator[tuple[layouts.Record, Future[bytes]]]:
        """Yields every record with its JPEG, each picture decoded once, by a thread."""
        root = Path(self.builder_config.path)
        threads = min(os.cpu_count() or 1, _MAX_THREADS)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(records), _CHUNK):
                chunk = records[start : start + _CHUNK]
                with warnings.catch_warnings():
                    # Pillow's, about pictures that are skipped or fine all the same.
                    warnings.simplefilter("ignore")
                    futures = [pool.submit(to_jpeg, root / r.name) for r in chunk]
                    for future in futures:
                        future.exception()
                yield from zip(chunk, futures, strict=True)


def prepare(path: str, data_dir: str | os.PathLike[str] | None = None) -> Folder:
    """Prepares a folder, unless exactly this state of it was prepared before.

    Args:
        path: string. The folder.
        data_dir: path. As for `galip_keras.datasets.prepare`.

    Returns:
        A `Folder` whose records are ready to be read.

    Raises:
        ValueError: where it is no folder or nothing in it can be used.
        FileNotFoundError: where it does not exist.
    """
    root = Path(path).expanduser().resolve()
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist: give the path of a folder")
    if not root.is_dir():
        raise ValueError(f"{root} is a file: give the folder that it is in")
    label = re.sub(r"[^A-Za-z0-9_-]", "_", root.name)[:40]
    name = f"{label}-{layouts.fingerprint(root)}"
    with _quiet():
        builder = _builder(name, root, data_dir)
        try:
            builder.download_and_prepare()
        except OSError:
            # Records appear by one renaming. It fails where another process has
            # prepared the same folder in the meantime.
            builder = _builder(name, root, data_dir)
            if not builder.data_path.exists():
                raise
    return builder


def _builder(name: str, root: Path, data_dir: str | os.PathLike[str] | None) -> Folder:
    config = FolderConfig(name=name, path=os.fspath(root))
    return Folder(config=config, data_dir=data_dir)


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
