"""Your own images and captions: a tensorflow-datasets builder for a folder.

A folder holds images (PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF; in subfolders too) and
their captions in one of three layouts:

- A table `metadata.jsonl` with lines like `{"file_name": "a.png", "text": "a red
  bird"}`, where the text may also be a list of captions, or `metadata.csv`,
  `metadata.tsv` or `metadata.parquet` with the columns `file_name` and `text`. Several
  rows about one file are several captions. A table in a subfolder is about the images
  below it. Tables may also be called `captions` instead of `metadata`.
- A `name.txt`, `name.png.txt` or `name.caption` beside each `name.png`. Every line is a
  caption.
- One caption for all images, or the names of the subfolders as captions, if the options
  `caption` or `caption_from` say so.

Subfolders `train`, `test` and `validation` (or `training`, `testing`, `val` and so on)
with one of these layouts become splits. Without them, everything is in the split
`train`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galip_keras.datasets import FOLDER_OPTIONS, layouts, records


class Folder(records.CaptionedImages):
    """Builder of the records of one folder in its present state."""

    description = "Images and captions from a folder."

    takes = FOLDER_OPTIONS

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        if not source:
            raise ValueError("give the folder of your images, as in folder:PATH")
        root = Path(source).expanduser().resolve()
        if not root.exists():
            raise FileNotFoundError(f"{root} does not exist: give the path of a folder")
        if not root.is_dir():
            raise ValueError(f"{root} is a file: give its folder")
        _check(options)
        label = re.sub(r"[^A-Za-z0-9_-]", "_", root.name)[:40]
        state = f"{label}-{layouts.fingerprint(root, options)}"
        return super().configure(state, str(root), **options)

    def _splits(self, dl_manager, skipped):
        return layouts.scan(self.builder_config, skipped)


def _check(options: Mapping[str, Any]) -> None:
    """Raise an error for options about captions that make no sense."""
    given = [name for name in FOLDER_OPTIONS if options.get(name)]
    if not set(given) <= {"image_column", "caption_column"} and len(given) > 1:
        names = " and ".join(f"`{name}`" for name in given)
        raise ValueError(f"{names} exclude each other: give one")
    for name in FOLDER_OPTIONS:
        if name in options and not options[name].strip():
            raise ValueError(f"`{name}` is blank: give a text or leave it out")
    if options.get("caption_from", "folder") != "folder":
        raise ValueError("`caption_from` must be folder")
