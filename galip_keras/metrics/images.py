"""Where pictures to be judged come from: a model, a folder, a data set."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from galip_keras.datasets import pipeline

# Pictures that are in memory at a time.
AT_ONCE = 32

_ERRORS = (OSError, UnidentifiedImageError, ValueError, SyntaxError)
# The field of EXIF where `galip sample` has the facts of a picture.
_DESCRIPTION = 0x010E
_GREY = ("1", "L", "LA", "I", "I;16", "F")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclasses.dataclass
class Pictures:
    """Pictures, a part at a time.

    Attributes:
        count: int.
        parts: callable without arguments. Returns an iterator of lists of uint8
            pictures `(height, width, 3)`.
        captions: list of `count` strings, or None.
        facts: dict of plain values. What a report tells of them.
    """

    count: int
    parts: Callable[[], Iterator[list[np.ndarray]]]
    captions: list[str] | None
    facts: dict


def generated(model, name, captions, seed=0):
    """Pictures that a model makes of captions.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        name: string. What it is called.
        captions: list of strings.
        seed: int. That of the first picture; the next ones count on.
    """

    def parts():
        for i, texts, padded in padded_parts(captions):
            yield list(model.generate(padded, seed=seed + i))[: len(texts)]

    return Pictures(len(captions), parts, captions, {"model": name, "seed": seed})


def padded_parts(captions):
    """Captions, a part at a time, of equal sizes: a graph is compiled for each size.

    Yields:
        Tuples of the number of the first caption, a list of captions, and that list
        filled up with empty ones.
    """
    for i in range(0, len(captions), AT_ONCE):
        texts = captions[i : i + AT_ONCE]
        yield i, texts, [*texts, *[""] * (AT_ONCE - len(texts))]


def of_folder(folder, count=None):
    """The pictures of a folder and those below it, by name.

    The caption of a picture is what `galip sample` has written into it, or stands in a
    text file of its name.

    Args:
        folder: path.
        count: int. The most pictures to take. Defaults to all.

    Raises:
        ValueError: where there are fewer than two.
    """
    paths = sorted(
        path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES
    )[:count]
    if len(paths) < 2:
        found = "one picture" if paths else "no pictures"
        raise ValueError(f"{folder} holds {found}: give a folder of two or more")

    def parts():
        for i in range(0, len(paths), AT_ONCE):
            yield [_read(path) for path in paths[i : i + AT_ONCE]]

    sizes, grey, captions = zip(*map(_header, paths))
    return Pictures(
        len(paths),
        parts,
        None if None in captions else list(captions),
        {"folder": str(folder), "grey": sum(grey), "sizes": len(set(sizes))},
    )


def of_dataset(builder, name, split, size, count=None):
    """The first pictures of a split: the middle of each, at a size.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        name: string. What the data set is called.
        split: string.
        size: int. Height and width, to which the shorter side is resized.
        count: int. The most pictures to take. Defaults to all.

    Raises:
        ValueError: where there is no such split, or fewer than two pictures in it.
    """
    total = pipeline.num_examples(builder, split)
    count = min(count or total, total)
    if count < 2:
        raise ValueError(f"the split {split} of {name} holds {total} pictures: too few")

    def parts():
        pairs = pipeline.pictures(builder, size, split, count).as_numpy_iterator()
        images = (image for image, _ in pairs)
        while part := list(itertools.islice(images, AT_ONCE)):
            yield part

    facts = {"dataset": name, "split": split, "size": size}
    return Pictures(count, parts, None, facts)


def captions_of(builder, split, count=None):
    """Captions of a split: the first of every picture, then the second, and so on.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        split: string.
        count: int. Defaults to one a picture. Where there are not so many captions,
            they are repeated.

    Returns:
        A list of `count` strings.
    """
    files = pipeline.shards(builder, split)
    total = pipeline.num_examples(builder, split)
    count = count or total
    records = pipeline.records(builder, files).take(count)
    captions = [record["captions"] for record in records.as_numpy_iterator()]
    return [
        texts[i // total % len(texts)].decode()
        for i, texts in zip(range(count), itertools.cycle(captions))
    ]


def drawn_from(builder, name, split, captions):
    """What a report tells of `captions_of`, a dict of plain values."""
    total = pipeline.num_examples(builder, split)
    return {
        "dataset": name,
        "split": split,
        "captions_a_picture": -(-len(captions) // total),
    }


def default_split(builder):
    """The split to measure on: test pictures where there are some."""
    for split in ("test", "validation", "val"):
        if split in builder.info.splits:
            return split
    return "train"


def _read(path):
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except _ERRORS as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from error


def _header(path):
    """Size, whether it is grey, and caption, as far as they can be told."""
    text = path.with_suffix(".txt")
    try:
        with Image.open(path) as image:
            size, is_grey = image.size, image.mode in _GREY
            caption = getattr(image, "text", {}).get("prompt") or _prompt(image)
    except _ERRORS:
        # That is told when it is read.
        return None, False, None
    if text.is_file():
        caption = text.read_text(encoding="utf-8", errors="replace").strip()
    return size, is_grey, caption or None


def _prompt(image):
    """What `galip sample` wrote to a picture of any format."""
    try:
        return json.loads(image.getexif()[_DESCRIPTION])["prompt"]
    except (KeyError, TypeError, ValueError):
        return None
