"""COCO 2014: photographs of everyday scenes, with about five captions each.

They are read from the three official zips, downloaded or given, or from the folders
that these unpack to. The zips are not unpacked.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from galip_keras.datasets import archives, captions, records
from galip_keras.datasets.records import Record
from galip_keras.images import ImageError, Source

# Split to its name in the zips and annotations.
_SPLITS = {"train": "train2014", "validation": "val2014"}

# Zip to the folder that it unpacks to.
_FOLDERS = {
    "train2014.zip": "train2014",
    "val2014.zip": "val2014",
    "annotations_trainval2014.zip": "annotations",
}
_ANNOTATIONS = "annotations_trainval2014.zip"

# An image of COCO takes a few hundred kilobytes.
_MAX_BYTES = 1 << 28

# File name to captions, in the order of the annotations.
_Captions = dict[str, list[str]]

_Find = Callable[[str], Source | ImageError]


class Part(NamedTuple):
    """A zip or the folder that it unpacks to."""

    path: Path
    is_zip: bool


def _url_info(size: int, checksum: str, name: str) -> UrlInfo:
    return UrlInfo(size=tfds.core.utils.Size(size), checksum=checksum, filename=name)


_DOWNLOADS = {
    "http://images.cocodataset.org/zips/train2014.zip": _url_info(
        13510573713,
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        "train2014.zip",
    ),
    "http://images.cocodataset.org/zips/val2014.zip": _url_info(
        6645013297,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        "val2014.zip",
    ),
    "http://images.cocodataset.org/annotations/annotations_trainval2014.zip": (
        _url_info(
            252872794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            "annotations_trainval2014.zip",
        )
    ),
}


class Coco(records.CaptionedImages):
    """Builder of the records of COCO 2014."""

    description = (
        "COCO 2014: 123,287 photographs of everyday scenes with about five captions "
        "each, 82,783 for training and 40,504 for validation."
    )
    homepage = "https://cocodataset.org"
    license = "Annotations CC BY 4.0; images under the terms of Flickr."
    citation = """@inproceedings{lin2014coco,
  title = {Microsoft {COCO}: Common Objects in Context},
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and
    Perona, Pietro and Ramanan, Deva and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {European Conference on Computer Vision},
  year = {2014},
}"""

    takes = ("captions",)

    url_infos = _DOWNLOADS

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        captioned = ""
        if given := options.get("captions"):
            path = captions.find(given, name)
            options["captions"] = str(path)
            captioned = f"-captions-{captions.state(path)}"
        if not source:
            return super().configure(f"official{captioned}", source, **options)
        folder = Path(source).expanduser().resolve()
        if folder.is_file():
            raise ValueError(
                f"{folder} is a file: give the folder of COCO's three zips"
            )
        parts = _parts(folder)
        if all(
            part.is_zip and part.path.stat().st_size == info.size
            for part, info in zip(parts.values(), cls.url_infos.values(), strict=True)
        ):
            state = "official"
        else:
            state = archives.state(folder, _counted(parts))
        return super().configure(f"{state}{captioned}", str(folder), **options)

    def _splits(self, dl_manager, skipped):
        parts = self._parts(dl_manager)
        texts = {
            split: _read_captions(parts[_ANNOTATIONS], f"captions_{original}.json")
            for split, original in _SPLITS.items()
        }
        if self.builder_config.captions:
            given = captions.read(Path(self.builder_config.captions))
            texts = {
                split: {name: _of(given, name) for name in names}
                for split, names in texts.items()
            }
        splits = {}
        for split, original in _SPLITS.items():
            part = parts[f"{original}.zip"]
            # Open each zip now, to find damage before hours of work on the other one.
            with _images(part):
                splits[split] = _records(part, texts[split])
        return splits

    def _parts(self, dl_manager: Any) -> dict[str, Part]:
        source = self.builder_config.source
        if source:
            return _parts(Path(source))
        paths = archives.download(dl_manager, list(self.url_infos), self.name)
        return {
            name: Part(path, is_zip=True)
            for name, path in zip(_FOLDERS, paths, strict=True)
        }


def _parts(folder: Path) -> dict[str, Part]:
    """The paths of the three zips, or of the folders that they unpack to."""
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist: give COCO's folder")
    parts = {}
    for name, unpacked in _FOLDERS.items():
        if (folder / name).is_file():
            parts[name] = Part(folder / name, is_zip=True)
        elif (folder / unpacked).is_dir():
            parts[name] = Part(folder / unpacked, is_zip=False)
        else:
            raise FileNotFoundError(
                f"{folder} has neither {name} nor a folder {unpacked}: add one of them"
            )
    return parts


def _counted(parts: dict[str, Part]) -> Iterator[Path]:
    """The files that identify a folder."""
    for part in parts.values():
        yield part.path
        if not part.is_zip:
            yield from part.path.glob("captions_*.json")


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except archives.DAMAGE as error:
        raise ValueError(
            f"{path} is not a zip archive, or is truncated: fetch it again"
        ) from error


def _read_captions(part: Part, name: str) -> _Captions:
    where = f"{part.path}: {name}"
    text = _annotations(part, name)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: fetch it again") from error
    found: _Captions = {}
    images: dict[Any, list[str]] = {}
    for row in _field(data, "images", list, where):
        file_name = _field(row, "file_name", str, f"{where}: images")
        # One list under both keys: captions refer to the number.
        number = _field(row, "id", (int, str), f"{where}: images")
        images[number] = found.setdefault(file_name, [])
    for row in _field(data, "annotations", list, where):
        caption = _field(row, "caption", str, f"{where}: annotations")
        number = _field(row, "image_id", (int, str), f"{where}: annotations")
        if number not in images:
            raise ValueError(f"{where}: a caption is about {number}, an unknown image")
        images[number].append(caption)
    return found


def _of(given: captions.Captions, name: str) -> list[str]:
    """The captions of an image in an archive of text files, if it has any."""
    try:
        return given.of(os.path.splitext(name)[0])
    except ImageError:
        return []


def _annotations(part: Part, name: str) -> bytes:
    if not part.is_zip:
        if not (part.path / name).is_file():
            raise FileNotFoundError(f"{part.path} has no {name}: add it")
        return (part.path / name).read_bytes()
    with _open_zip(part.path) as archive, archives.reading(part.path):
        for info in archive.infolist():
            if PurePosixPath(info.filename).name == name:
                return archive.read(info)
    raise ValueError(f"{part.path} has no {name}: give COCO's own {_ANNOTATIONS}")


def _field(row: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{where} has no usable {key}: fetch COCO's own file")
    return value


def _records(part: Part, captioned: _Captions) -> Iterator[Record]:
    with _images(part) as find:
        for name, texts in captioned.items():
            yield Record(name, texts, find(name) if texts else ImageError("no caption"))


@contextlib.contextmanager
def _images(part: Part) -> Iterator[_Find]:
    """A function that finds an image by its name, or the reason why there is none."""
    if not part.is_zip:
        yield functools.partial(_in_folder, part.path)
        return
    with _open_zip(part.path) as archive:
        members = {
            PurePosixPath(info.filename).name: info for info in archive.infolist()
        }
        yield functools.partial(_in_zip, archive, members)


def _in_folder(folder: Path, name: str) -> Source | ImageError:
    if os.path.basename(name) != name:
        return ImageError("outside the folder")
    path = folder / name
    return path if os.path.isfile(path) else ImageError("no image")


def _in_zip(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str
) -> Source | ImageError:
    info = members.get(name)
    if info is None:
        return ImageError("no image")
    if info.file_size > _MAX_BYTES:
        return ImageError("too many bytes")
    try:
        return archive.read(info)
    except archives.DAMAGE:
        return ImageError("damaged in the archive")
