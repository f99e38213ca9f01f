"""Draw a sheet of captioned images from a dataset."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFont, ImageOps

from galip_keras.datasets import pipeline

_COLUMNS = 4
_SIDE = 192
_LINES = 4
_FONT_SIZE = 12
_LINE = 15
_MARGIN = 8
_CHARACTERS = 32


def contact_sheet(
    builder: tfds.core.DatasetBuilder, split: str = "train", count: int = 16
) -> Image.Image:
    """Draw images from all over a split, each with its first caption below it.

    Args:
        builder: a builder that `galip_keras.datasets.prepare` returned.
        split: string.
        count: int. The largest number of images to show.

    Returns:
        An RGB `PIL.Image.Image`.

    Raises:
        ValueError: If there is no such split.
    """
    total = pipeline.num_examples(builder, split)
    count = min(count, total)
    stored = pipeline.records(builder, pipeline.shards(builder, split))
    chosen = stored.shard(total // count, 0).take(count).as_numpy_iterator()
    tiles = [_tile(record) for record in chosen]
    columns = min(_COLUMNS, count)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-count // columns) * height), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    return sheet


def _tile(record: Mapping[str, Any]) -> Image.Image:
    stored = Image.open(io.BytesIO(record["image"]))
    padded = ImageOps.pad(stored, (_SIDE, _SIDE), color="white")
    tile = Image.new(
        "RGB", (_SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN + _LINES * _LINE), "white"
    )
    tile.paste(padded, (_MARGIN, _MARGIN))
    caption = record["captions"][0].decode()
    lines = textwrap.wrap(caption, _CHARACTERS, max_lines=_LINES, placeholder=" ...")
    ImageDraw.Draw(tile).multiline_text(
        (_MARGIN, _SIDE + _MARGIN + 2),
        "\n".join(lines),
        fill="black",
        font=ImageFont.load_default(_FONT_SIZE),
        spacing=_LINE - _FONT_SIZE,
    )
    return tile
