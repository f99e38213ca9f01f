"""Your own images and captions: a tensorflow-datasets builder for a folder.

A folder holds images (PNG, JPEG, WebP, GIF, BMP or TIFF; in subfolders too) and their
captions in one of three layouts:

- `metadata.jsonl` with lines like `{"file_name": "a.png", "text": "a red bird"}`. The
  text may also be a list of captions.
- `metadata.csv` with the columns `file_name` and `text`. Several rows about one file
  are several captions.
- A `name.txt` beside each `name.png`. Every line is a caption.

Subfolders `train`, `test` and `validation` (or `val`, `valid`) with one of these
layouts become splits. Without them, everything is in the split `train`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from galip_keras.datasets import layouts, records


class Folder(records.CaptionedImages):
    """Builder of the records of one folder in its present state."""

    description = "Images and captions from a folder."

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        if not source:
            raise ValueError("give the folder of your images, as in folder:PATH")
        root = Path(source).expanduser().resolve()
        if not root.exists():
            raise FileNotFoundError(f"{root} does not exist: give the path of a folder")
        if not root.is_dir():
            raise ValueError(f"{root} is a file: give its folder")
        label = re.sub(r"[^A-Za-z0-9_-]", "_", root.name)[:40]
        state = f"{label}-{layouts.fingerprint(root)}"
        return super().configure(state, str(root), **options)

    def _splits(self, dl_manager, skipped):
        return layouts.scan(Path(self.builder_config.source), skipped)
