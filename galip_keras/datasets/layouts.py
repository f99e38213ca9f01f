"""The content of a folder of images and captions, in any of the usual layouts.

Names are relative to the folder, with `/` between their parts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from galip_keras.datasets import metadata
from galip_keras.datasets.records import Record, Skipped
from galip_keras.images import SUFFIXES

_SPLITS = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}


def fingerprint(root: Path) -> str:
    """A hash that changes whenever an image or a caption in a folder changes.

    Files are identified by name, size and modification time; metadata files by their
    content too.
    """
    digest = hashlib.sha256(os.fsencode(root))
    for name in _files(root):
        stat = os.stat(root / name)
        digest.update(ascii((name, stat.st_size, stat.st_mtime_ns)).encode())
        if name.endswith(metadata.FILES):
            digest.update((root / name).read_bytes())
    return digest.hexdigest()[:16]


def scan(root: Path, skipped: Skipped) -> dict[str, list[Record]]:
    """Find the captioned images of every split.

    Args:
        root: path. The folder of the dataset.
        skipped: dict of lists. Images that are left out are added to it.

    Returns:
        A dict of splits to lists of `Record`, `"train"` first.

    Raises:
        ValueError: If it is not clear which subfolders are splits, or if a split has no
            images, no captions or unreadable metadata.
    """
    folders = _split_folders(root)
    if root not in folders.values():
        inside = {folder.name for folder in folders.values()}
        for name in _files(root):
            if _is_image(name) and name.split("/")[0] not in inside:
                skipped["outside the split folders"].append(name)
    return {
        split: list(_read_split(root, folder, skipped))
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
    for name in metadata.FILES:
        if (root / name).exists():
            raise ValueError(f"{root / name} is beside train: move it into train")
    return {"train": found.pop("train"), **found}


def _read_split(root: Path, folder: Path, skipped: Skipped) -> Iterator[Record]:
    prefix = folder.relative_to(root)
    files = [(prefix / name).as_posix() for name in _files(folder)]
    images = [name for name in files if _is_image(name)]
    if not images:
        raise ValueError(f"{folder} holds no images: add images and their captions")
    tables = [folder / name for name in metadata.FILES if (folder / name).is_file()]
    if len(tables) > 1:
        raise ValueError(f"{folder} has both {' and '.join(metadata.FILES)}: keep one")
    if tables:
        captioned = _from_metadata(tables[0], prefix, images, skipped)
    else:
        texts = {_stem(name): name for name in files if name.lower().endswith(".txt")}
        if texts.keys().isdisjoint(map(_stem, images)):
            raise ValueError(
                f"{folder} has no captions: add metadata.jsonl, metadata.csv or a "
                "NAME.txt beside every image"
            )
        captioned = _from_pairs(root, texts, images, skipped)
    for name, captions in captioned:
        yield Record(name, captions, root / name)


def _files(folder: Path) -> list[str]:
    """The images, texts and metadata in a folder and its subfolders, sorted."""
    names: list[str] = []
    visited = set()
    for parent, subfolders, files in os.walk(folder, onerror=_raise, followlinks=True):
        # A link to a parent folder would otherwise be followed forever.
        real = os.path.realpath(parent)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = Path(parent).relative_to(folder)
        for name in files:
            # Not a dangling link, nor a pipe, where reading would wait forever.
            if _is_ours(name) and os.path.isfile(os.path.join(parent, name)):
                names.append((relative / name).as_posix())
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error


def _is_ours(name: str) -> bool:
    if name.startswith("."):
        return False
    return _is_image(name) or name.lower().endswith(".txt") or name in metadata.FILES


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _from_pairs(
    root: Path, texts: dict[str, str], images: list[str], skipped: Skipped
) -> Iterator[tuple[str, list[str]]]:
    for name in images:
        if _stem(name) not in texts:
            skipped["no caption"].append(name)
            continue
        try:
            text = (root / texts[_stem(name)]).read_text("utf-8-sig")
            yield name, text.splitlines()
        except UnicodeDecodeError:
            skipped["caption is not UTF-8"].append(name)
    for stem in sorted(texts.keys() - map(_stem, images)):
        skipped["no image"].append(texts[stem])


def _from_metadata(
    path: Path, prefix: Path, images: Iterable[str], skipped: Skipped
) -> Iterator[tuple[str, list[str]]]:
    captions: dict[str, list[str]] = {}
    for file_name, texts in metadata.rows(path):
        relative = PurePosixPath(file_name)
        if relative.is_absolute() or ".." in relative.parts:
            skipped["outside the folder"].append(file_name)
        else:
            captions.setdefault((prefix / relative).as_posix(), []).extend(texts)
    for name in images:
        if name in captions:
            yield name, captions.pop(name)
        else:
            skipped["no caption"].append(name)
    # Only images found in the folder are ever opened: these were not found.
    for name in captions:
        skipped["no image"].append(name)
