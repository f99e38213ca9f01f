"""Datasets, prepared once as tensorflow-datasets records.

Importing this module is cheap: `prepare()` loads TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from galip_keras.console import needs_tensorflow
from galip_keras.datasets import summary

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from galip_keras.datasets.records import CaptionedImages


class Entry(NamedTuple):
    """A named dataset: its builder, and what a list of datasets shows.

    `builder` is a module and a class in it, a subclass of `records.CaptionedImages`.
    `paper` is the file of the captions that GALIP's authors share, a key of
    `galip_keras.downloads.sources.SOURCES`, or empty.
    """

    builder: str
    description: str
    num_images: str
    download: str
    license: str
    paper: str = ""


DATASETS = {
    "toybirds": Entry(
        "toybirds.builder.Toybirds",
        "cartoon birds drawn by this package, ten captions each",
        "12,000",
        "none",
        "Apache 2.0, as this package",
    ),
    "cub": Entry(
        "cub.Cub",
        "CUB-200-2011, photographs of birds; cub:PATH reads its archive from there",
        "11,788",
        "1.2 GB",
        "non-commercial research",
        "birds_metadata.zip",
    ),
    "coco": Entry(
        "coco.Coco",
        "COCO 2014, five captions each; coco:PATH reads its archives from there",
        "123,287",
        "20 GB",
        "annotations CC BY 4.0, images Flickr's terms",
        "coco_metadata.zip",
    ),
    "cc3m": Entry(
        "web.Web",
        "Conceptual Captions; cc3m:PATH is a folder or bucket that img2dataset wrote",
        "about 3 million",
        "by img2dataset",
        "Google's terms, images their owners'",
    ),
    "cc12m": Entry(
        "web.Web",
        "Conceptual 12M; cc12m:PATH is a folder or bucket that img2dataset wrote",
        "about 12 million",
        "by img2dataset",
        "Google's terms, images their owners'",
    ),
    "folder": Entry(
        "folder.Folder",
        "folder:PATH, your own images and captions",
        "any",
        "none",
        "yours",
    ),
    "tfds": Entry(
        "adapters.FromTFDS",
        "tfds:NAME[:image_key,text_key], any dataset of tensorflow-datasets",
        "any",
        "its own",
        "its own",
    ),
    "hf": Entry(
        "adapters.FromHub",
        "hf:NAME[:image_key,text_key], any dataset on the Hugging Face hub",
        "any",
        "its own",
        "its own",
    ),
}


# What stands for the captions that GALIP's authors share, in place of a path.
PAPER = "paper"

# How the captions of a folder are found: fields of `records.Config`.
FOLDER_OPTIONS = ("image_column", "caption_column", "caption", "caption_from")


def prepare(
    dataset: str,
    data_dir: str | os.PathLike[str] | None = None,
    captions: str | None = None,
    allow_bad: bool = False,
    num_workers: int | None = None,
    beam_runner: str | None = None,
    **folder_options: str | None,
) -> tfds.core.DatasetBuilder:
    """Prepare a dataset, unless it is prepared already, and return its builder.

    An example of any dataset has `image` (JPEG bytes, RGB), `captions` (one or more
    strings) and `id` (a string).

    Args:
        dataset: string. A key of `DATASETS`, for most of them followed by a colon and
            the source, such as `folder:PATH`.
        data_dir: path. Where prepared datasets live. Defaults to the environment
            variable `TFDS_DATA_DIR`, else to `~/tensorflow_datasets`.
        captions: path. For `cub` and `coco`: the archive or folder of other captions,
            or `"paper"` for those that GALIP's authors share, which are fetched.
        allow_bad: bool. Whether more than 1 % of the images may be left out.
        num_workers: int. Threads that decode images. Defaults to the number of cores.
        beam_runner: string. For `cc3m` and `cc12m`: the Apache Beam runner that
            prepares them, such as `"DirectRunner"`. Defaults to preparing without Beam.
        **folder_options: strings. For `folder`: `image_column` and `caption_column`
            name columns of its tables, `caption` is the caption of all its images, and
            `caption_from="folder"` takes the names of its subfolders as captions.

    Returns:
        A `tfds.core.DatasetBuilder` whose records are ready to be read.

    Raises:
        ValueError: If the dataset is unknown or cannot be used.
        OSError: If files are missing, cannot be fetched or cannot be written.

    Example:

    ```python
    builder = prepare("folder:~/birds")
    print("\\n".join(report(builder)))
    ```
    """
    return find(
        dataset,
        data_dir,
        captions=captions,
        allow_bad=allow_bad,
        num_workers=num_workers,
        **folder_options,
    ).prepare(beam_runner)


def find(
    dataset: str, data_dir: str | os.PathLike[str] | None = None, **options: Any
) -> CaptionedImages:
    """The builder of a dataset that need not be prepared yet.

    Args:
        dataset: string. As for `prepare`.
        data_dir: path. As for `prepare`.
        **options: other fields of `galip_keras.datasets.records.Config`. None stands
            for their defaults.

    Returns:
        A `galip_keras.datasets.records.CaptionedImages`.

    Raises:
        ValueError: If the dataset is unknown or its source makes no sense.
        ModuleNotFoundError: If TensorFlow is not installed.
        OSError: If its source does not exist.
    """
    name, _, source = str(dataset).partition(":")
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        raise ValueError(f"unknown dataset {dataset!r}: give one of {known}")
    module, _, class_name = DATASETS[name].builder.rpartition(".")
    with needs_tensorflow("reading a dataset"):
        import tensorflow  # noqa: F401, tensorflow-datasets imports it too late

        builder = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    options = {key: value for key, value in options.items() if value is not None}
    return builder.open(builder.configure(name, source, **options), data_dir)


def prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """The folders with prepared records of a dataset.

    Args:
        name: string. A key of `DATASETS`.
        data_dir: path. As for `prepare`.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    builder = DATASETS[name].builder
    class_name = builder.rpartition(".")[2]
    folder = re.sub("(?<=[a-z])(?=[A-Z])", "_", class_name).lower()
    shared = [entry.builder for entry in DATASETS.values()].count(builder) > 1
    return [
        str(path.parent)
        for path in sorted(Path(root).expanduser().glob(f"{folder}/*/*/features.json"))
        # If datasets share a builder, their names begin the configurations' names.
        if not shared or path.parts[-3].startswith(name)
    ]


def report(builder: tfds.core.DatasetBuilder) -> list[str]:
    """What the preparation of a dataset left out or found odd, as lines to print.

    The lines come from the records' metadata, which has the complete lists:
    `builder.info.metadata["skipped"]`, a dict of reasons to names, and
    `builder.info.metadata["long_captions"]`, a list of names.
    """
    return summary.lines(builder.info.metadata or {})
