"""Captions from archives of text files, or made from the attributes of CUB.

The archives of Reed et al.'s captions of CUB in circulation have ten lines about each
image in `text/CLASS/IMAGE.txt` or `text_c10/CLASS/IMAGE.txt`, inside any other folders
or in a `text.zip`. Those of COCO have `text/COCO_val2014_000000000042.txt`. Some
also have the splits: lists of images as pickles of Python 2
(`train/filenames.pickle`, `test/filenames.pickle`), or lists of classes
(`trainvalclasses.txt`, `testclasses.txt`).
"""

from __future__ import annotations

import pickletools
import re
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from galip_keras.datasets import DATASETS, PAPER, archives
from galip_keras.downloads.fetch import fetch
from galip_keras.images import ImageError

_TEXT = re.compile(r"(?:^|/)(\d+\.[^/]+/[^/.][^/]*|COCO_\w+_\d+)\.txt$")
_NESTED = re.compile(r"(?:^|/)text[^/]*\.zip$")
_PICKLE = re.compile(r"(?:^|/)(train|test)/filenames\.pickle$")
_CLASSES = re.compile(r"(?:^|/)(train|val|trainval|test)classes\.txt$")

# A hundred times the size of the real files.
_MAX_BYTES = 1 << 26

_STRINGS = {
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
}
# The other instructions that make up a list of strings.
_STRUCTURE = {
    "PROTO",
    "FRAME",
    "MARK",
    "EMPTY_LIST",
    "LIST",
    "APPEND",
    "APPENDS",
    "PUT",
    "BINPUT",
    "LONG_BINPUT",
    "MEMOIZE",
    "STOP",
}

# Kind of list to split to the images or classes in it.
_Lists = dict[str, dict[str, list[str]]]

# Group to the values that are seen, such as `{"wing_color": ["black", "white"]}`.
Attributes = dict[str, list[str]]


class Captions(NamedTuple):
    """Captions, undecoded if they come from files, and splits of images or classes.

    Images are named `CLASS/IMAGE`, or by their file alone in COCO, without an
    extension. `splits` is empty if no lists were found.
    """

    texts: Mapping[str, bytes | list[str]]
    splits: dict[str, str]

    def of(self, name: str) -> list[str]:
        """The captions of an image. Raises an `ImageError` if it has none."""
        text = self.texts.get(name)
        if text is None:
            raise ImageError("no caption")
        if isinstance(text, list):
            return text
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ImageError("caption is not UTF-8") from error
        # Some real lines have a U+FFFD in place of lost characters between two words.
        lines = decoded.replace("\ufffd", " ").split("\n")
        return [" ".join(line.split()) for line in lines]

    def split_of(self, name: str) -> str | None:
        """The split of an image, or None if it is in no list."""
        return self.splits.get(name) or self.splits.get(name.split("/")[0])


def find(given: str, dataset: str) -> Path:
    """The archive or folder of captions that a user asks for.

    Args:
        given: string. A path, or `"paper"` for what GALIP's authors share, which is
            fetched the first time.
        dataset: string. A key of `DATASETS` whose captions they share.

    Raises:
        OSError: If there is none, or if it cannot be fetched.
        ValueError: If its licence is not accepted, or if it is not the right file.
    """
    if given == PAPER:
        return fetch(DATASETS[dataset].paper)
    return archives.existing(given, "give the archive or the folder of the captions")


def state(path: Path) -> str:
    """A name for the content of an archive or folder of captions."""
    kinds = (".txt", ".pickle", ".zip")
    files = (file for file in path.rglob("*") if file.suffix in kinds)
    return archives.state(path, filter(Path.is_file, files))


def read(path: Path) -> Captions:
    """Read an archive or a folder of captions.

    Args:
        path: path. A zip or tar archive or a folder, in a layout described above.

    Raises:
        ValueError: If it is damaged, has no captions or contradicts itself.
    """
    texts: dict[str, bytes | list[str]] = {}
    lists: _Lists = defaultdict(lambda: defaultdict(list))
    with archives.reading(path):
        for name, file in _members(path):
            where = f"{path}: {name}"
            if match := _TEXT.search(name):
                texts.setdefault(match[1], _bytes(file, where))
            elif match := _PICKLE.search(name):
                listed = list_of_strings(_bytes(file, where), where)
                lists["filenames.pickle"][match[1]] += listed
            elif match := _CLASSES.search(name):
                split = "test" if match[1] == "test" else "train"
                lists["classes.txt"][split] += _lines(_bytes(file, where), where)
    if not texts:
        raise ValueError(
            f"{path} has no captions: give an archive or a folder that has files like "
            "text/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.txt or "
            "text/COCO_val2014_000000000042.txt"
        )
    return Captions(texts, _splits(path, lists))


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the files in an archive that may be needed, also in a zip inside it."""
    for name, opened in archives.members(path):
        if _NESTED.search(name):
            with opened() as file, tempfile.TemporaryFile() as copy:
                # A zip is read from its end, but a file in an archive cannot seek.
                shutil.copyfileobj(file, copy)
                with zipfile.ZipFile(copy) as inner:
                    for inner_name, inner_opened in archives.zip_members(inner):
                        with inner_opened() as inner_file:
                            yield f"{name}/{inner_name}", inner_file
        elif name.endswith((".txt", ".pickle")):
            with opened() as file:
                yield name, file


def _bytes(file: IO[bytes], where: str) -> bytes:
    data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(
            f"{where} is over {_MAX_BYTES >> 20} MiB, too large for captions"
        )
    return data


def _lines(data: bytes, where: str) -> list[str]:
    try:
        return data.decode("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: save it as UTF-8") from error


def list_of_strings(data: bytes, where: str) -> list[str]:
    """Read the pickle of a list of strings without running it.

    Its instructions are inspected instead. The strings are collected, and any
    instruction that a list of strings does not need is refused.

    Args:
        data: bytes. A pickle of any protocol.
        where: string. Its name, for errors.

    Raises:
        ValueError: If it is not a pickle, or a pickle of something else.
    """
    strings = []
    lists = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _STRINGS:
                # Some copies went through a tool that ends lines with CR LF.
                strings.append(str(argument).strip())
            elif opcode.name not in _STRUCTURE:
                raise ValueError(f"it has {opcode.name}")
            lists += opcode.name in ("EMPTY_LIST", "LIST")
        if lists != 1:
            raise ValueError(f"it has {lists} lists")
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{where} is not a pickle of a list of strings, so it was not loaded"
        ) from error
    return strings


def _splits(path: Path, lists: _Lists) -> dict[str, str]:
    # Lists of images say more than lists of classes.
    for kind in ("filenames.pickle", "classes.txt"):
        if kind not in lists:
            continue
        train, test = lists[kind]["train"], lists[kind]["test"]
        if not train or not test:
            missing = "testing" if train else "training"
            raise ValueError(f"{path} has no {kind} for {missing}: add it")
        if both := sorted(set(train).intersection(test)):
            raise ValueError(
                f"{path} lists {both[0]} for both training and testing: remove one"
            )
        return dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
    return {}


# CUB's terms to words. Other terms are not worth mentioning.
_SHAPES = {
    "curved_(up_or_down)": "curved",
    "dagger": "dagger-like",
    "hooked": "hooked",
    "needle": "needle-like",
    "hooked_seabird": "hooked",
    "spatulate": "spoon-shaped",
    "cone": "cone-shaped",
}
_LENGTHS = {"longer_than_head": "long", "shorter_than_head": "short"}
_PATTERNS = {"spotted": "spotted", "striped": "striped"}
_HEADS = {**_PATTERNS, "crested": "crested", "masked": "masked", "capped": "capped"}
_TAILS = {
    "forked_tail": "forked",
    "rounded_tail": "rounded",
    "notched_tail": "notched",
    "fan-shaped_tail": "fan-shaped",
    "pointed_tail": "pointed",
    "squared_tail": "squared",
}
_SIZES = {
    "very_small_(3_-_5_in)": "very small",
    "small_(5_-_9_in)": "small",
    "medium_(9_-_16_in)": "medium-sized",
    "large_(16_-_32_in)": "large",
    "very_large_(32_-_72_in)": "very large",
}

_MAX_COLORS = 3


def describe(bird: str, attributes: Attributes) -> list[str]:
    """Captions of a bird, always the same for the same arguments.

    Args:
        bird: string. The name of its species, such as "Black footed Albatross".
        attributes: dict of groups to lists of values, in the terms of CUB.

    Returns:
        A list of one to five strings.
    """
    named = _with_article(bird)
    looks = " ".join(filter(None, [_size(attributes), _colors(attributes, "primary")]))
    plain = _with_article(f"{looks} bird".strip())
    parts = _parts(attributes)
    texts = [named]
    if looks:
        texts.append(plain)
    if parts:
        texts.append(f"{named} with {_listed(parts[:3])}")
        texts.append(f"this {looks} bird has {_listed(parts[1:4] or parts)}")
        texts.append(f"{plain} with {_listed(parts[4:] or parts[:2])}")
    return list(dict.fromkeys(" ".join(text.split()) for text in texts))


def _parts(attributes: Attributes) -> list[str]:
    """The parts of a bird with known attributes, the most visible parts first."""
    parts = {
        "wings": [_colors(attributes, "wing")],
        "beak": [
            _first(attributes, "bill_length", _LENGTHS),
            _colors(attributes, "bill"),
            _first(attributes, "bill_shape", _SHAPES),
        ],
        "belly": [
            _first(attributes, "belly_pattern", _PATTERNS),
            _colors(attributes, "belly"),
        ],
        "crown": [_colors(attributes, "crown")],
        "breast": [
            _first(attributes, "breast_pattern", _PATTERNS),
            _colors(attributes, "breast"),
        ],
        "tail": [
            _first(attributes, "tail_shape", _TAILS),
            _colors(attributes, "upper_tail"),
        ],
        "head": [_first(attributes, "head_pattern", _HEADS)],
        "legs": [_colors(attributes, "leg")],
    }
    described = {noun: " ".join(filter(None, words)) for noun, words in parts.items()}
    return [
        f"{words} {noun}" if noun.endswith("s") else _with_article(f"{words} {noun}")
        for noun, words in described.items()
        if words
    ]


def _first(attributes: Attributes, group: str, words: dict[str, str]) -> str:
    return next((words[v] for v in attributes.get(group, ()) if v in words), "")


def _size(attributes: Attributes) -> str:
    return _first(attributes, "size", _SIZES)


def _colors(attributes: Attributes, part: str) -> str:
    return _listed(attributes.get(f"{part}_color", [])[:_MAX_COLORS])


def _listed(words: list[str]) -> str:
    """Such as "black, white and red"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _with_article(words: str) -> str:
    # "European" begins with a consonant sound.
    vowel = words[0] in "AEIOUaeiou" and not words.startswith("Eu")
    return f"{'an' if vowel else 'a'} {words}"
