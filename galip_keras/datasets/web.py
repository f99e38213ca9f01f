"""Images of the web and their captions, as img2dataset fetches them.

Its shards are read from a folder or, not yet tested, from a bucket: `gs://` or another
path that `etils.epath` opens. `shards.py` describes the two formats. Subfolders `train`
and `validation` (or `val`) of shards become splits. Without them, everything is in the
split `train`. All other files are ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from galip_keras.datasets import records, shards

_ABOUT = {
    "cc3m": (
        "Conceptual Captions: 3 million images of the web and cleaned captions.",
        "https://ai.google.com/research/ConceptualCaptions/",
    ),
    "cc12m": (
        "Conceptual 12M: 12 million images of the web and their captions.",
        "https://github.com/google-research-datasets/conceptual-12m",
    ),
}

_SPLITS = {"train": "train", "validation": "validation", "val": "validation"}
_FORMATS = (".tar", ".tfrecord")

# A bucket takes a tenth of a second to describe a file, and there are thousands.
_STAT_THREADS = 16


class Web(records.CaptionedImages):
    """Builder of the records of img2dataset's shards, in their present state."""

    license = "Images: their owners'. Captions: the terms of Google's dataset."

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        if not source:
            raise ValueError(
                f"{name} is fetched with img2dataset and given as {name}:PATH: "
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
        return {split: shards.read(paths) for split, paths in self._shards().items()}

    def _shards(self) -> dict[str, list[epath.Path]]:
        return _find(epath.Path(self.builder_config.source))

    # On Apache Beam, the runner chooses where each shard is read. What was left out of
    # it comes back as a line of JSON.

    _on_beam = False

    def _download_config(self, beam_runner):
        if not beam_runner:
            return super()._download_config(beam_runner)
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise ValueError(
                "`beam_runner` needs Apache Beam: pip install 'galip-keras[beam]'"
            ) from error
        self._on_beam = True
        return tfds.download.DownloadConfig(
            beam_runner=beam_runner,
            # Beam would otherwise read options from the command line.
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
        """A `beam.PTransform` that yields the examples of a split."""
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

        skipped = records.Skipped()
        long_captions: list[str] = []
        used = 0
        for example in self._examples(
            shards.read([epath.Path(path)]), skipped, long_captions
        ):
            yield example
            used += 1
        account = {"used": used, "skipped": skipped, "long_captions": long_captions}
        yield beam.pvalue.TaggedOutput("account", json.dumps(account))

    def _process_pipeline_result(self, pipeline_result):
        """Add up the accounts of all shards."""
        metadata = self.info.metadata
        skipped = metadata["skipped"] = records.Skipped()
        for split in self._shards():
            used = 0
            for account in _taken(self._accounts(split)):
                used += account["used"]
                metadata["long_captions"].extend(account["long_captions"])
                for reason, names in account["skipped"].items():
                    skipped[reason].extend(names)
            self._check_split(split, used)


def _find(root: epath.Path) -> dict[str, list[epath.Path]]:
    """The shards of every split, `"train"` first."""
    with shards.in_one_line(root):
        if not root.exists():
            raise FileNotFoundError(
                f"{root} does not exist: give the folder that img2dataset wrote to"
            )
        if not root.is_dir():
            raise ValueError(f"{root} is a file: give its folder")
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
        name = found["validation"].name
        raise ValueError(f"{root} has {name} but no train folder: add it")
    if any(path.suffix in _FORMATS for path in root.iterdir()):
        raise ValueError(f"{root} has shards beside train: move them into train")
    return found


def _shards(folder: epath.Path) -> list[epath.Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix in _FORMATS)
    suffixes = {path.suffix for path in paths}
    if not suffixes:
        raise ValueError(
            f"{folder} holds no shards: give the folder of .tar or .tfrecord files "
            "that img2dataset wrote"
        )
    if len(suffixes) > 1:
        raise ValueError(f"{folder} holds both .tar and .tfrecord files: keep one kind")
    return paths


def _fingerprint(splits: dict[str, list[epath.Path]]) -> str:
    """A hash that changes with the name, size or modification time of any shard."""

    def state(path: epath.Path) -> str:
        with shards.in_one_line(path):
            stat = path.stat()
        return ascii((os.fspath(path), stat.length, stat.mtime))

    digest = hashlib.sha256()
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for paths in splits.values():
            for line in pool.map(state, paths):
                digest.update(line.encode())
    return digest.hexdigest()[:16]


def _taken(accounts: epath.Path) -> Iterator[dict[str, Any]]:
    """Yield the accounts in all files of this prefix, and remove the files."""
    for path in accounts.parent.glob(f"{accounts.name}-*"):
        for line in path.read_text().splitlines():
            yield json.loads(line)
        path.unlink()
