"""Data sets, prepared once as tensorflow-datasets records.

Importing this module costs nothing: TensorFlow is loaded by `prepare()`.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from galip_keras.datasets import summary

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from galip_keras.datasets.records import CaptionedImages


class Entry(NamedTuple):
    """A data set that has a name: its builder, and what a list of them shows."""

    builder: str
    description: str
    pictures: str
    download: str
    license: str


# `builder` is a module and a class in it, a `records.CaptionedImages`.
DATASETS = {
    "toybirds": Entry(
        "toybirds.Toybirds",
        "cartoon birds, drawn by this package, ten captions each",
        "12,000",
        "none",
        "Apache 2.0, as this package",
    ),
    "cub": Entry(
        "cub.Cub",
        "CUB-200-2011, photographs of birds; cub:PATH takes the archive from there",
        "11,788",
        "1.2 GB",
        "non-commercial research",
    ),
    "coco": Entry(
        "coco.Coco",
        "COCO 2014, five captions each; coco:PATH takes the archives from there",
        "123,287",
        "20 GB",
        "annotations CC BY 4.0, pictures Flickr's terms",
    ),
    "cc3m": Entry(
        "web.Web",
        "Conceptual Captions; cc3m:PATH is what img2dataset wrote, folder or bucket",
        "about 3 million",
        "by img2dataset",
        "Google's terms, pictures their owners'",
    ),
    "cc12m": Entry(
        "web.Web",
        "Conceptual 12M; cc12m:PATH is what img2dataset wrote, folder or bucket",
        "about 12 million",
        "by img2dataset",
        "Google's terms, pictures their owners'",
    ),
    "folder": Entry(
        "folder.Folder",
        "folder:PATH, your own pictures and captions",
        "any",
        "none",
        "yours",
    ),
    "tfds": Entry(
        "adapters.FromTFDS",
        "tfds:NAME[:image_key,text_key], any of tensorflow-datasets",
        "any",
        "its own",
        "its own",
    ),
    "hf": Entry(
        "adapters.FromHub",
        "hf:NAME[:image_key,text_key], any of Hugging Face's hub",
        "any",
        "its own",
        "its own",
    ),
}


def prepare(
    dataset: str,
    data_dir: str | os.PathLike[str] | None = None,
    captions: str | None = None,
    allow_bad: bool = False,
    num_workers: int | None = None,
    beam_runner: str | None = None,
) -> tfds.core.DatasetBuilder:
    """Prepares a data set, unless that was done before, and returns its builder.

    An example of any data set is `image` (JPEG bytes, RGB), `captions` (one or more
    strings) and `id` (a string).

    Args:
        dataset: string. A key of `DATASETS`, for most of them with a colon and where it
            comes from, such as `folder:PATH`.
        data_dir: path. Where prepared data sets live. Defaults to
            tensorflow-datasets' own choice: `TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`.
        captions: path. For `cub`: the archive or folder of Reed et al.'s captions.
        allow_bad: bool. Whether more than 1 % of the pictures may be left out.
        num_workers: int. Threads that decode pictures. Defaults to the cores.
        beam_runner: string. For `cc3m` and `cc12m`: the Apache Beam runner that
            prepares them, such as `"DirectRunner"`. None does without Beam.

    Returns:
        A `tfds.core.DatasetBuilder` whose records are ready to be read.

    Raises:
        ValueError: where the data set is unknown or cannot be used.
        OSError: where files are missing, cannot be fetched or cannot be written.

    Example:

    ```python
    builder = prepare("folder:~/pictures")
    print("\\n".join(report(builder)))
    ```
    """
    return find(
        dataset,
        data_dir,
        captions=captions or "",
        allow_bad=allow_bad,
        num_workers=num_workers or 0,
    ).prepare(beam_runner)


def find(
    dataset: str, data_dir: str | os.PathLike[str] | None = None, **options: Any
) -> CaptionedImages:
    """The builder of a data set, whose records need not be prepared yet.

    Args:
        dataset: string. As for `prepare`.
        data_dir: path. As for `prepare`.
        **options: other fields of `galip_keras.datasets.records.Config`.

    Returns:
        A `galip_keras.datasets.records.CaptionedImages`.

    Raises:
        ValueError: where the data set is unknown or its source cannot be one.
        OSError: where its source does not exist.
    """
    name, _, source = str(dataset).partition(":")
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        raise ValueError(f"unknown data set {dataset!r}: give one of {known}")
    module, _, class_name = DATASETS[name].builder.partition(".")
    builder = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    return builder.open(builder.configure(name, source, **options), data_dir)


def prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """The folders of prepared records of a data set.

    Args:
        name: string. A key of `DATASETS`.
        data_dir: path. As for `prepare`.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    builder = DATASETS[name].builder
    class_name = builder.partition(".")[2]
    folder = re.sub("(?<=[a-z])(?=[A-Z])", "_", class_name).lower()
    shared = [entry.builder for entry in DATASETS.values()].count(builder) > 1
    return [
        str(path.parent)
        for path in sorted(Path(root).expanduser().glob(f"{folder}/*/*/features.json"))
        # Where data sets share a builder, configurations begin with their names.
        if not shared or path.parts[-3].startswith(name)
    ]


def report(builder: tfds.core.DatasetBuilder) -> list[str]:
    """What preparing a data set left out or found odd, as lines to print.

    It is stored with the records, so it can be shown again at any time. The complete
    lists are `builder.info.metadata["skipped"]`, a dict of reason to names, and
    `builder.info.metadata["long_captions"]`, a list of names.
    """
    return summary.lines(builder.info.metadata or {})
