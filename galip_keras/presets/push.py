"""Upload presets to a hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import keras_hub

from galip_keras.console import first_words
from galip_keras.presets import card
from galip_keras.presets.loading import find_preset

# The addresses that `find_preset` can read again.
_ADDRESS = re.compile(
    r"hf://[\w.-]+(/[\w.-]+)?|kaggle://[\w-]+/[\w-]+/keras/[\w-]+",
)


def push(preset: str | Path, address: str) -> str:
    """Upload a preset with its card, as `keras_hub.upload_preset` does.

    Args:
        preset: string or path. A preset, a preset folder or a run folder.
        address: string. `hf://USER/MODEL` or `kaggle://USER/MODEL/keras/VARIATION`.

    Returns:
        The address, which `GALIPTextToImage.from_preset` takes.

    Raises:
        ValueError: if there is no such preset, the address is not valid, or the hub
            refuses.
    """
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"{address!r} is no address of a hub: give hf://USER/MODEL or "
            "kaggle://USER/MODEL/keras/VARIATION"
        )
    folder = Path(find_preset(preset))
    try:
        _upload(folder, address)
    except Exception as error:
        raise ValueError(
            f"{address} did not take {preset} ({first_words(error)})"
        ) from error
    return address


def _upload(folder: Path, address: str) -> None:
    # Upload a copy: if the hub has no card yet, keras-hub overwrites the one in the
    # folder with its own, and then deletes it.
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(folder, Path(temporary, folder.name)))
        card.move(copy, address)
        if address.startswith("hf://") and card.read(copy):
            _upload_card(copy, address.removeprefix("hf://"))
        keras_hub.upload_preset(address, str(copy))


def _upload_card(folder: Path, name: str) -> None:
    import huggingface_hub

    repository = huggingface_hub.create_repo(name, exist_ok=True)
    huggingface_hub.upload_file(
        path_or_fileobj=folder / card.CARD,
        path_in_repo=card.CARD,
        repo_id=repository.repo_id,
    )
