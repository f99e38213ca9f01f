"""Presets on their way to a hub."""

import re
import shutil
import tempfile
from pathlib import Path

import keras_hub

from galip_keras.console import first_words
from galip_keras.presets import card
from galip_keras.presets.loading import find_preset

# What `find_preset` reads again, and of what form.
_ADDRESSES = {
    "hf": r"hf://[\w.-]+(/[\w.-]+)?",
    "kaggle": r"kaggle://[\w-]+/[\w-]+/keras/[\w-]+",
}


def push(preset, address):
    """Uploads a preset to a hub, as `keras_hub.upload_preset` does, with its card.

    Args:
        preset: string. A preset, a preset folder or a run folder.
        address: string. `hf://USER/MODEL` or `kaggle://USER/MODEL/keras/VARIATION`.

    Returns:
        The address, which `GALIPTextToImage.from_preset` takes.

    Raises:
        ValueError: where there is no such preset, the address is none, or the hub
            refuses.
    """
    if not any(re.fullmatch(form, address) for form in _ADDRESSES.values()):
        raise ValueError(
            f"{address!r} is no address of a hub: give hf://USER/MODEL or "
            "kaggle://USER/MODEL/keras/VARIATION"
        )
    folder = Path(find_preset(preset))
    try:
        # A copy: where the hub has no card yet, keras-hub writes one of its own over
        # that of the folder, and deletes it.
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(shutil.copytree(folder, Path(temporary, folder.name)))
            card.move(copy, address)
            if address.startswith("hf://") and card.read(copy):
                _upload_card(copy, address.removeprefix("hf://"))
            keras_hub.upload_preset(address, str(copy))
    except Exception as error:
        raise ValueError(
            f"{address} did not take {preset} ({first_words(error)})"
        ) from error
    return address


def _upload_card(folder, name):
    import huggingface_hub

    repository = huggingface_hub.create_repo(name, exist_ok=True)
    huggingface_hub.upload_file(
        path_or_fileobj=folder / card.CARD,
        path_in_repo=card.CARD,
        repo_id=repository.repo_id,
    )
