"""The models that GALIP's authors released, by name: fetched and converted once."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

from galip_keras.console import say
from galip_keras.downloads import fetch as downloads
from galip_keras.downloads.licenses import accept
from galip_keras.downloads.sources import MODELS, Model, size
from galip_keras.files import write_folder

_CONFIG = "config.json"
_CLIP = "clip_vit_base_patch32"


def preset_path(name: str) -> Path:
    """The preset folder of a released model, which need not exist yet."""
    return downloads.home() / "presets" / name


def is_here(name: str) -> bool:
    """Whether a released model is on this machine, ready to use."""
    return (preset_path(name) / _CONFIG).is_file()


def fetch(name: str) -> Path:
    """Return the preset of a released model. The first time, fetch and convert it.

    The checkpoint is the authors'. The text encoder and the vocabulary come from
    keras-hub's CLIP or from Hugging Face's. The preset appears when it is complete, and
    needs no network from then on.

    Args:
        name: string. A key of `galip_keras.downloads.sources.MODELS`.

    Returns:
        The preset folder, a `pathlib.Path`.

    Raises:
        LicenseError: if the licence was not accepted.
        OSError: if a file cannot be fetched or stored.
        ValueError: if a file is not what it should be.
    """
    folder = preset_path(name)
    if is_here(name):
        return folder
    model = MODELS[name]
    what = f"{name}, {model.description}, {size(model.megabytes)} to fetch"
    accept(what, model.license)
    checkpoint = downloads.fetch(model.checkpoint)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with downloads.only_one(folder.with_name(f".{name}.lock"), name):
            if not is_here(name):
                _convert(model, checkpoint, folder)
    except OSError as error:
        # HDF5 has its own words around those of the system.
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise OSError(
            f"the disk is full: the preset of {name} needs 1 GB in {folder.parent}. "
            "Make room and run the same again, or set GALIP_HOME to a folder elsewhere"
        ) from error
    return folder


def _convert(model: Model, checkpoint: Path, folder: Path) -> None:
    from galip_keras.convert.galip import convert

    say(f"Converting {checkpoint.name}: this happens once.")
    with write_folder(folder) as temporary:
        made = temporary / folder.name
        try:
            network = convert(str(checkpoint), str(made), clip=_CLIP)
        except (ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{checkpoint} and {_CLIP} do not make {folder.name} ({error}): if the "
                "file is not the right one, delete it to fetch it again"
            ) from error
        _write_card(made, model, network)
        for path in made.iterdir():
            os.replace(path, temporary / path.name)
        made.rmdir()


def _write_card(folder: Path, model: Model, network: Any) -> None:
    from galip_keras.presets import card
    from galip_keras.presets.sizes import describe

    own = {
        "data": f"{model.description}.",
        "license": f"{model.license}.",
        "handle": folder.name,
    }
    card.write(folder, describe(network), {**card.read_origin(folder), **own})
