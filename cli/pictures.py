"""Files of pictures, which carry how they were made."""

import json
import os
import tempfile

import click

# By the name of a format: the ending of its files, and how they are written.
FORMATS = {
    "png": (".png", {}),
    "jpeg": (".jpg", {"quality": 95}),
    "webp": (".webp", {"quality": 95, "lossless": False}),
}

# The field of EXIF, which all formats have, for the facts as JSON.
DESCRIPTION = 0x010E


def check_writable(folder):
    """Makes a folder, or says why not before anything slow is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise click.ClickException(
            f"{folder} cannot be written ({error.strerror}): give another --out."
        ) from error


def save(image, path, facts, file_format="png"):
    """Writes a file beside its place, and moves it there once it is complete."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info, exif = PngInfo(), Image.Exif()
    for key, value in facts.items():
        info.add_itxt(key, str(value))
    exif[DESCRIPTION] = json.dumps(facts)
    part = path.with_name(f"{path.name}.tmp")
    image.save(part, file_format, pnginfo=info, exif=exif, **FORMATS[file_format][1])
    os.replace(part, path)
