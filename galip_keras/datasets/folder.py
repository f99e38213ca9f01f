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

import re
from pathlib import Path

from galip_keras.datasets import layouts, records


class Folder(records.CaptionedImages):
    """Builder of one folder's records, of exactly the state that it is in."""

    description = "Pictures and captions from a folder."

    @classmethod
    def configure(cls, name, source, **options):
        if not source:
            raise ValueError("give the folder of your pictures, as in folder:PATH")
        root = Path(source).expanduser().resolve()
        if not root.exists():
            raise FileNotFoundError(f"{root} does not exist: give the path of a folder")
        if not root.is_dir():
            raise ValueError(f"{root} is a file: give the folder that it is in")
        label = re.sub(r"[^A-Za-z0-9_-]", "_", root.name)[:40]
        state = f"{label}-{layouts.fingerprint(root)}"
        return super().configure(state, str(root), **options)

    def _splits(self, dl_manager, skipped):
        return layouts.scan(Path(self.builder_config.source), skipped)
