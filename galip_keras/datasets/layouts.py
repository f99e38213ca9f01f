"""The content of a folder of images and captions, in any of the usual layouts.

Names are relative to the folder, with `/` between their parts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from galip_keras.datasets import FOLDER_OPTIONS, metadata, sidecars
from galip_keras.datasets.captioning import Files, captioned, found_instead
from galip_keras.datasets.records import Config, Record, Skipped
from galip_keras.files import files_below
from galip_keras.images import SUFFIXES

# The names of Hugging Face's ImageFolder.
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


def fingerprint(root: Path, options: Mapping[str, Any]) -> str:
    """A hash that changes whenever an image or a caption in a folder changes.

    Files are identified by name, size and modification time; tables by their content
    too.

    Args:
        root: path. The folder of the dataset.
        options: mapping. Fields of `Config`. Those about captions count.
    """
    digest = hashlib.sha256(os.fsencode(root))
    for option in FOLDER_OPTIONS:
        if options.get(option):
            digest.update(ascii((option, options[option])).encode())
    for name in _files(root):
        stat = os.stat(root / name)
        digest.update(ascii((name, stat.st_size, stat.st_mtime_ns)).encode())
        if metadata.is_table(name):
            digest.update((root / name).read_bytes())
    return digest.hexdigest()[:16]


def scan(config: Config, skipped: Skipped) -> dict[str, list[Record]]:
    """Find the captioned images of every split.

    Args:
        config: a `Config` whose source is the folder of the dataset.
        skipped: a `Skipped`. Images that are left out are added to it.

    Returns:
        A dict of splits to lists of `Record`, `"train"` first.

    Raises:
        ValueError: If it is not clear which subfolders are splits, or if a split has no
            images, no captions or unreadable metadata.
    """
    root = Path(config.source)
    folders = _split_folders(root)
    if root not in folders.values():
        inside = {folder.name for folder in folders.values()}
        for name in _files(root):
            if _is_image(name) and name.split("/")[0] not in inside:
                skipped["outside the split folders"].append(name)
    return {
        split: list(_read_split(config, folder, skipped))
        for split, folder in folders.items()
    }


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split = _SPLITS.get(folder.name.lower())
        if split is None:
            continue
        if split in found:
            names = f"{found[split].name} and {folder.name}"
            raise ValueError(f"{root} has both {names}: keep one")
        found[split] = folder
    if not found:
        return {"train": root}
    if "train" not in found:
        names = " and ".join(folder.name for folder in found.values())
        raise ValueError(f"{root} has {names} but no train folder: add it")
    for path in root.iterdir():
        if metadata.is_table(path.name, "metadata"):
            raise ValueError(f"{path} is beside train: move it into train")
    return {"train": found.pop("train"), **found}


def _read_split(config: Config, folder: Path, skipped: Skipped) -> Iterator[Record]:
    root = Path(config.source)
    prefix = PurePosixPath(folder.relative_to(root).as_posix())
    names = [str(prefix / name) for name in files_below(folder)]
    images = [name for name in names if _is_image(name)]
    others = [name for name in names if not _is_image(name)]
    if not images:
        raise ValueError(
            f"{folder} holds no images: add images and their captions"
            f"{found_instead(others)}"
        )
    files = Files(root, prefix, images, others)
    for name, captions in captioned(files, config, skipped):
        yield Record(name, captions, root / name)


def _files(folder: Path) -> list[str]:
    """The images, texts and tables in a folder and its subfolders, sorted."""
    names = files_below(folder)
    return [name for name in names if _is_image(name) or _has_captions(name)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _has_captions(name: str) -> bool:
    return name.lower().endswith(sidecars.SUFFIXES) or metadata.is_table(name)
