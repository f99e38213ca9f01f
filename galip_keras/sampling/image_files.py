"""Image files that carry how they were made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from galip_keras.sampling.requests import FORMATS

# The EXIF field, which all formats have, that holds the facts as JSON.
DESCRIPTION = 0x010E


def save_image(
    image: Image.Image,
    path: Path,
    facts: Mapping[str, Any],
    file_format: str = "png",
) -> None:
    """Write an image and how it was made, whole or not at all.

    Args:
        image: a `PIL.Image.Image`.
        path: path.
        facts: mapping of plain values, stored as EXIF and, in a PNG, as text.
        file_format: string. A key of `FORMATS`.
    """
    info, exif = PngInfo(), Image.Exif()
    for key, value in facts.items():
        info.add_itxt(key, str(value))
    exif[DESCRIPTION] = json.dumps(facts)
    part = path.with_name(f"{path.name}.tmp")
    image.save(part, file_format, pnginfo=info, exif=exif, **FORMATS[file_format][1])
    os.replace(part, path)


def read_facts(path: Path) -> dict[str, Any] | None:
    """What an image file tells of itself, or None where there is no image."""
    try:
        with Image.open(path) as image:
            comment = image.info.get("comment", "{}") if image.format == "GIF" else "{}"
            return dict(json.loads(image.getexif().get(DESCRIPTION, comment)))
    except (OSError, SyntaxError):
        return None
    except (ValueError, TypeError):
        return {}


def free_path(path: Path, facts: Mapping[str, Any]) -> Path:
    """Find a name that does not replace an image that was made in another way.

    Args:
        path: path. The name to take, if no image of other facts has it.
        facts: mapping of plain values. What must agree with an image of that name.

    Returns:
        `path`, or beside it a name with a hash of the facts.
    """
    there = read_facts(path) or {}
    facts = {key: value for key, value in facts.items() if key != "version"}
    if all(there.get(key, value) == value for key, value in facts.items()):
        return path
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return path.with_name(f"{path.stem}-{digest}{path.suffix}")


def cut_sheet(path: Path, columns: int) -> np.ndarray:
    """The images of a square sheet, uint8 `(columns**2, height, width, 3)`."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = (size // columns for size in pixels.shape[:2])
    parts = pixels.reshape(columns, height, columns, width, 3)
    return parts.swapaxes(1, 2).reshape(-1, height, width, 3)
