"""CUB-200-2011: photographs of 200 species of birds, cropped to the bird.

They are read from the official archive, downloaded or given, or from the folder that it
unpacks to. As in all the text-to-image literature, 150 species are for training and the
other 50 for testing.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from galip_keras.datasets import archives, captions, records
from galip_keras.datasets.captions import Attributes, Captions
from galip_keras.datasets.jpeg import Box
from galip_keras.datasets.records import Record
from galip_keras.images import ImageError

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1"

# The test classes of the text-to-image literature since Reed et al. (2016): 8,855
# images are for training and 2,933 for testing.
# fmt: off
TEST_CLASSES = frozenset((
    1, 4, 6, 8, 9, 14, 23, 29, 31, 33, 34, 35, 36, 37, 38, 43, 49, 51, 53, 66, 72, 79,
    83, 84, 86, 91, 95, 96, 98, 101, 102, 103, 112, 114, 119, 121, 130, 135, 138, 147,
    156, 163, 165, 166, 180, 183, 185, 186, 187, 197,
))
# fmt: on

NOTE = (
    "captions are made from the names and attributes of the birds, not those of the "
    'paper: give those of Reed et al. (2016), "Learning Deep Representations of '
    'Fine-grained Visual Descriptions", as `captions`, or "paper" to fetch them'
)

# Without `\` and `:`, which would lead out of a folder on Windows.
_IMAGE = re.compile(r"(\d+)\.[^/\\:]+/[^/\\:]+\.[A-Za-z]+")
_MEMBER = re.compile(rf"(?:^|/)images/({_IMAGE.pattern})$")

_ATTRIBUTES = "attributes.txt"
_LABELS = "image_attribute_labels.txt"
_TABLES = frozenset(("images.txt", "bounding_boxes.txt", _ATTRIBUTES, _LABELS))

# Probably and definitely, in attributes/certainties.txt.
_CERTAIN = frozenset(("3", "4"))

_DOWNLOADS = {
    URL: UrlInfo(
        size=tfds.core.utils.Size(1150585339),
        checksum="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        filename="CUB_200_2011.tgz",
    )
}


class Cub(records.CaptionedImages):
    """Builder of the records of CUB-200-2011."""

    description = (
        "CUB-200-2011: 11,788 photographs of 200 species of birds, cropped to the "
        "bird, 150 species for training and 50 for testing."
    )
    homepage = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    license = "Non-commercial research and education; the images are their owners'."
    citation = """@techreport{WahCUB_200_2011,
  title = {The Caltech-UCSD Birds-200-2011 Dataset},
  author = {Wah, C. and Branson, S. and Welinder, P. and Perona, P. and Belongie, S.},
  year = {2011},
  institution = {California Institute of Technology},
  number = {CNS-TR-2011-001},
}"""

    takes = ("captions",)

    url_infos = _DOWNLOADS

    # The folder that the archive is unpacked to, while it is needed.
    _unpacked: tempfile.TemporaryDirectory | None = None

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        state = "official"
        if source:
            path = archives.existing(source, "give CUB_200_2011.tgz or its folder")
            source = str(path)
            state = cls._state(path)
        if given := options.get("captions"):
            path = captions.find(given, name)
            options["captions"] = str(path)
            state += f"-captions-{captions.state(path)}"
        else:
            state += "-attributes"
        return super().configure(state, source, **options)

    @classmethod
    def _state(cls, path: Path) -> str:
        (official,) = cls.url_infos.values()
        if path.is_file() and path.stat().st_size == official.size:
            return "official"
        return archives.state(path, Files(path).tables() if path.is_dir() else ())

    def prepare(self, beam_runner: str | None = None) -> records.CaptionedImages:
        try:
            return super().prepare(beam_runner)
        finally:
            if self._unpacked is not None:
                self._unpacked.cleanup()

    def _splits(self, dl_manager, skipped):
        files = self._files(dl_manager)
        images, boxes = files.images(), files.boxes()
        found = self._captions(files, images)
        splits: dict[str, list[Record]] = {"train": [], "test": []}
        for number, name in images.items():
            stem = _stem(name)
            split = found.split_of(stem) if found.splits else _official_split(stem)
            if split is None:
                skipped["in no split"].append(name)
            else:
                splits[split].append(
                    _record(files.root, name, boxes.get(number), found)
                )
        stems = set(map(_stem, images.values()))
        for stem in found.splits:
            if "/" in stem and stem not in stems:
                skipped["no image"].append(stem)
        if not splits["train"]:
            raise ValueError(
                f"{files.shown} has no images for training: give the whole archive"
            )
        return {split: listed for split, listed in splits.items() if listed}

    def _files(self, dl_manager) -> Files:
        source = self.builder_config.source
        if source and os.path.isdir(source):
            return Files(Path(source))
        if source:
            return Files(self._unpack(Path(source)), source)
        (path,) = archives.download(dl_manager, list(self.url_infos), self.name)
        return Files(self._unpack(path), str(path))

    def _unpack(self, path: Path) -> Path:
        """Unpack the needed files beside those of tensorflow-datasets, for a while."""
        parent = Path(self._data_dir_root) / "downloads" / "extracted"
        self._unpacked = tempfile.TemporaryDirectory(prefix="cub-", dir=parent)
        root = Path(self._unpacked.name)
        with archives.reading(path):
            for name, opened in archives.members(path):
                if match := _MEMBER.search(name):
                    target = root / "images" / match[1]
                    target.parent.mkdir(parents=True, exist_ok=True)
                elif (base := name.rpartition("/")[2]) in _TABLES:
                    target = root / base
                else:
                    continue
                with opened() as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)
        return root

    def _captions(self, files: Files, images: dict[str, str]) -> Captions:
        if self.builder_config.captions:
            return captions.read(Path(self.builder_config.captions))
        self.info.metadata["note"] = NOTE
        attributes = files.attributes()
        texts = {
            _stem(name): captions.describe(_bird(name), attributes.get(number, {}))
            for number, name in images.items()
        }
        return Captions(texts, {})


class Files:
    """The files of CUB in a folder.

    Args:
        folder: path. The folder inside the archive, or the folder that contains it.
        shown: string. What errors call the folder. Defaults to its path.
    """

    def __init__(self, folder: Path, shown: str = "") -> None:
        below = sorted(path.parent for path in folder.glob("*/images.txt"))
        here = (folder / "images.txt").exists() or not below
        self.root = folder if here else below[0]
        self.shown = shown or str(folder)

    def tables(self) -> list[Path]:
        """The paths of all tables that exist."""
        return [path for name in sorted(_TABLES) if (path := self._find(name))]

    def images(self) -> dict[str, str]:
        """The names of the images by number, in the official order."""
        images: dict[str, str] = {}
        names = set()
        for where, (number, name) in self._rows("images.txt", 2):
            if not _IMAGE.fullmatch(name):
                raise ValueError(f"{where} is not a number and CLASS/IMAGE.jpg")
            if number in images or name in names:
                raise ValueError(f"{where} repeats a number or an image")
            images[number] = name
            names.add(name)
        return images

    def boxes(self) -> dict[str, Box]:
        """The bounding boxes of the birds by the number of the image."""
        boxes: dict[str, Box] = {}
        for where, (number, *cells) in self._rows("bounding_boxes.txt", 5):
            try:
                x, y, width, height = map(float, cells)
            except ValueError as error:
                raise ValueError(f"{where} is not five numbers") from error
            if not math.isfinite(x + y + width + height):
                raise ValueError(f"{where} is not five numbers")
            boxes[number] = x, y, width, height
        return boxes

    def attributes(self) -> dict[str, Attributes]:
        """What annotators were sure to see, by the number of the image.

        The dict is empty if the tables do not exist.
        """
        seen: dict[str, Attributes] = defaultdict(lambda: defaultdict(list))
        if not self._find(_ATTRIBUTES) or not self._find(_LABELS):
            return seen
        names = dict(self._attribute_names())
        # Some lines of the real file have one or two extra columns.
        for _, cells in self._rows(_LABELS, 4, more=True):
            number, attribute, present, certainty, *_ = cells
            if present == "1" and certainty in _CERTAIN and attribute in names:
                group, value = names[attribute]
                seen[number][group].append(value)
        return seen

    def _attribute_names(self) -> Iterator[tuple[str, tuple[str, str]]]:
        for where, (number, name) in self._rows(_ATTRIBUTES, 2):
            group, colons, value = name.removeprefix("has_").partition("::")
            if not colons:
                raise ValueError(f"{where} is not a number and has_GROUP::VALUE")
            yield number, (group, value)

    def _find(self, name: str) -> Path | None:
        # The official archive has attributes.txt beside the folder.
        for folder in (self.root, self.root / "attributes", self.root.parent):
            if (folder / name).is_file():
                return folder / name
        return None

    def _rows(
        self, name: str, columns: int, more: bool = False
    ) -> Iterator[tuple[str, list[str]]]:
        """Yield a name for each line of a table, for errors, and its columns."""
        path = self._find(name)
        if path is None:
            raise FileNotFoundError(
                f"{self.shown} has no {name}: give CUB_200_2011.tgz or its folder"
            )
        with open(path, encoding="utf-8") as lines:
            try:
                for number, line in enumerate(lines, start=1):
                    cells = line.split()
                    if cells:
                        where = f"{self.shown}: {name}, line {number}"
                        if len(cells) < columns or (len(cells) > columns and not more):
                            raise ValueError(f"{where} does not have {columns} columns")
                        yield where, cells
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.shown}: {name} is not UTF-8") from error


def _record(root: Path, name: str, box: Box | None, found: Captions) -> Record:
    try:
        if not os.path.isfile(root / "images" / name):
            raise ImageError("no image")
        if box is None:
            raise ImageError("no box")
        return Record(name, found.of(_stem(name)), root / "images" / name, box)
    except ImageError as error:
        return Record(name, [], error)


def _official_split(stem: str) -> str:
    return "test" if int(stem.partition(".")[0]) in TEST_CLASSES else "train"


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _bird(name: str) -> str:
    """The name of the bird in `001.Black_footed_Albatross/IMAGE`."""
    return name.split("/")[0].partition(".")[2].replace("_", " ")
