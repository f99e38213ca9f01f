"""Captions in text files beside the images: `a.txt` or `a.png.txt` for `a.png`.

Every line is a caption.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from galip_keras.datasets import metadata, names
from galip_keras.datasets.records import Skipped
from galip_keras.images import SUFFIXES as IMAGE_SUFFIXES

# A file with the first suffix comes before one with the second.
SUFFIXES = (".txt", ".caption")

UNREAD = "not a kind of image that can be read"

# A folder may hold a licence and some notes. With more text files that have no image,
# it looks as if images were lost.
_MAX_NOTES = 5


def find(images: list[str], others: list[str]) -> dict[str, str]:
    """Map the images to the text files beside them, as far as they have one.

    Args:
        images: list of strings.
        others: list of strings. The other files.
    """
    found: dict[str, str] = {}
    spellings = [[name, _stem(name)] for name in images]
    for suffix in SUFFIXES:
        texts = {_stem(x): x for x in others if x.lower().endswith(suffix)}
        for name, text in zip(images, names.match(spellings, texts)):
            if text is not None:
                found.setdefault(name, texts[text])
    return found


def read(path: Path) -> list[str] | None:
    """The captions in a text file, or None if it is not UTF-8."""
    try:
        with metadata.open_text(path) as file:
            return file.read().splitlines()
    except UnicodeError:
        return None


def skip_strays(
    texts: Iterable[str], images: list[str], others: list[str], skipped: Skipped
) -> None:
    """Account for text files that belong to no image.

    Args:
        texts: iterable of strings. Files that `find` did not return.
        images: list of strings.
        others: list of strings. The other files.
        skipped: a `Skipped`, to add to.
    """
    # A second text of an image is none of them.
    described = {*images, *map(_stem, images)}
    unread = {_stem(name): name for name in others if _is_unread_image(name)}
    strays = []
    for text in texts:
        if not text.lower().endswith(SUFFIXES) or _stem(text) in described:
            continue
        if _stem(text) in unread:
            skipped[UNREAD].append(unread[_stem(text)])
        else:
            strays.append(text)
            skipped["no image"].append(text)
    if len({PurePosixPath(text).name for text in strays}) <= _MAX_NOTES:
        skipped.num_notes += len(strays)


def _is_unread_image(name: str) -> bool:
    kind, _ = mimetypes.guess_type(PurePosixPath(name).name)
    is_read = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    return kind is not None and kind.startswith("image/") and not is_read


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
