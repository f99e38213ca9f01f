"""Where images to evaluate come from: a model, a folder, a dataset."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from galip_keras.datasets import pipeline
from galip_keras.files import files_below
from galip_keras.images import (
    SUFFIXES,
    ImageError,
    open_image,
    read_as_pytorch_fid,
    read_image,
)
from galip_keras.models.text_encoder import padded_batches

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from galip_keras.models.text_to_image import GALIPTextToImage

# Images in memory at a time.
BATCH_SIZE = 32

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
_TEST_SPLITS = ("test", "validation", "val")


@dataclasses.dataclass
class ImageSet:
    """Images to evaluate, a batch at a time.

    Attributes:
        count: int.
        batches: callable without arguments. Returns an iterator of lists of uint8
            images `(height, width, 3)`.
        captions: list of `count` strings, or None.
        facts: dict of plain values. What a report says about the images.
    """

    count: int
    batches: Callable[[], Iterator[list[np.ndarray]]]
    captions: list[str] | None
    facts: dict[str, Any]


class Split(NamedTuple):
    """A split of a prepared dataset, and what the user calls the dataset."""

    builder: tfds.core.DatasetBuilder
    dataset: str
    name: str

    @classmethod
    def of(
        cls, builder: tfds.core.DatasetBuilder, dataset: str, name: str | None = None
    ) -> Split:
        """The split called `name`, else the test split, else the training split."""
        splits = builder.info.splits
        found = (split for split in _TEST_SPLITS if split in splits)
        return cls(builder, dataset, name or next(found, "train"))

    def captions(self, count: int | None = None) -> list[str]:
        """First captions of all images, then all second captions, and so on.

        Args:
            count: int. Defaults to one per image. Captions repeat if there are fewer.

        Returns:
            A list of `count` strings.
        """
        files = pipeline.shards(self.builder, self.name)
        total = pipeline.num_examples(self.builder, self.name)
        count = count or total
        records = pipeline.records(self.builder, files).take(count)
        captions = [record["captions"] for record in records.as_numpy_iterator()]
        return [
            texts[i // total % len(texts)].decode()
            for i, texts in zip(range(count), itertools.cycle(captions))
        ]


def generated(
    model: GALIPTextToImage,
    name: str,
    split: Split,
    num_images: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """Images that a model generates from the captions of a split.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        name: string. What a report calls the model.
        split: a `Split`.
        num_images: int. Defaults to the size of the split.
        seed: int. The seed of the first image. The next images count up from it.
    """
    captions = split.captions(num_images)

    def batches():
        first = seed
        for texts, count in padded_batches(captions, BATCH_SIZE):
            yield list(model.generate(texts, seed=first))[:count]
            first += count

    total = pipeline.num_examples(split.builder, split.name)
    facts = {
        "model": name,
        "precision": model.precision,
        "seed": seed,
        "dataset": split.dataset,
        "split": split.name,
        "captions_a_picture": -(-len(captions) // total),
    }
    return ImageSet(len(captions), batches, captions, facts)


def of_split(split: Split, size: int) -> ImageSet:
    """The real images of a split, each cropped to its central square.

    Args:
        split: a `Split`.
        size: int. Height and width in pixels.

    Raises:
        ValueError: If there is no such split, or only one image in it.
    """
    builder, dataset, name = split
    count = pipeline.num_examples(builder, name)
    if count < 2:
        raise ValueError(
            f"the split {name} of {dataset} holds {count} image: choose another `split`"
        )

    def batches():
        pairs = pipeline.images(builder, size, name).as_numpy_iterator()
        images = (image for image, _ in pairs)
        while batch := list(itertools.islice(images, BATCH_SIZE)):
            yield batch

    facts = {"dataset": dataset, "split": name, "size": size}
    return ImageSet(count, batches, None, facts)


def of_folder(
    folder: str | os.PathLike[str],
    num_images: int | None = None,
    reader: str = "training",
) -> ImageSet:
    """The images in a folder and its subfolders, sorted by name.

    They are found as for training: hidden files are left out, links are followed, and a
    subfolder with several names counts once.

    The caption of an image is in a text file of the same name, or is the prompt that
    `galip sample` wrote into the image.

    Args:
        folder: path.
        num_images: int. The number of images to take. Defaults to all.
        reader: string. One of `galip_keras.metrics.config.READERS`.

    Raises:
        ValueError: If there are fewer than two.
    """
    names = files_below(folder) if os.path.isdir(folder) else []
    paths = sorted(Path(folder, name) for name in names)
    paths = [x for x in paths if x.suffix.lower() in SUFFIXES][:num_images]
    if len(paths) < 2:
        found = "one image" if paths else "no images"
        raise ValueError(f"{folder} holds {found}: give a folder of two or more")

    def batches():
        for i in range(0, len(paths), BATCH_SIZE):
            yield [_read(path, reader) for path in paths[i : i + BATCH_SIZE]]

    headers = (_header(path, reader) for path in paths)
    sizes, grey, captions = zip(*headers)
    facts = {"folder": str(folder), "grey": sum(grey), "sizes": len(set(sizes))}
    if reader != "training":
        facts["reader"] = reader
    return ImageSet(
        len(paths),
        batches,
        None if None in captions else list(captions),
        facts,
    )


def _read(path: Path, reader: str) -> np.ndarray:
    read = read_image if reader == "training" else read_as_pytorch_fid
    try:
        return np.asarray(read(path))
    except ImageError as error:
        raise ValueError(f"{path}: {error}: repair the image or remove it") from error


def _header(path: Path, reader: str) -> tuple[tuple[int, int] | None, bool, str | None]:
    """The size of an image, whether it is grey, and its caption if it has one."""
    text = path.with_suffix(".txt")
    try:
        with open_image(path) as image:
            size = _upright_size(image) if reader == "training" else image.size
            is_grey = image.mode in _GREY_MODES
            caption = getattr(image, "text", {}).get("prompt") or _prompt(image)
    except ImageError:
        # `_read` will report it.
        return None, False, None
    if text.is_file():
        caption = text.read_text(encoding="utf-8", errors="replace").strip()
    return size, is_grey, caption or None


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    is_on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
    return (height, width) if is_on_its_side else (width, height)


def _prompt(image: Image.Image) -> str | None:
    """The prompt that `galip sample` wrote into an image of any format."""
    try:
        description = image.getexif()[ExifTags.Base.ImageDescription]
        return json.loads(description)["prompt"]
    except (KeyError, TypeError, ValueError):
        return None
