"""Data sets, prepared once as tensorflow-datasets records.

Importing this module costs nothing: TensorFlow is loaded by `prepare()`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from galip_keras.datasets import summary

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def prepare(
    dataset: str, data_dir: str | os.PathLike[str] | None = None
) -> tfds.core.DatasetBuilder:
    """Prepares a data set, unless that was done before, and returns its builder.

    An example of any data set is `image` (JPEG bytes, RGB, the shorter side 304
    pixels), `captions` (one or more strings) and `id` (a string).

    Args:
        dataset: string. `folder:PATH`, where PATH is a folder of pictures and captions
            as `galip_keras.datasets.folder` describes.
        data_dir: path. Where prepared data sets live. Defaults to
            tensorflow-datasets' own choice: `TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`.

    Returns:
        A `tfds.core.DatasetBuilder` whose records are ready to be read.

    Raises:
        ValueError: where the data set is unknown or cannot be used.
        FileNotFoundError: where the folder does not exist.

    Example:

    ```python
    builder = prepare("folder:~/pictures")
    print("\\n".join(report(builder)))
    ```
    """
    source, _, path = dataset.partition(":")
    if source != "folder" or not path:
        raise ValueError(f"unknown data set {dataset!r}: give folder:PATH")
    from galip_keras.datasets import folder

    return folder.prepare(path, data_dir)


def report(builder: tfds.core.DatasetBuilder) -> list[str]:
    """What preparing a data set left out or found odd, as lines to print.

    It is stored with the records, so it can be shown again at any time. The complete
    lists are `builder.info.metadata["skipped"]`, a dict of reason to names, and
    `builder.info.metadata["long_captions"]`, a list of names.
    """
    return summary.lines(builder.info.metadata or {})
