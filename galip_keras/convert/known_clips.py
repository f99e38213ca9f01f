"""OpenAI's CLIPs by name: of keras-hub, or of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import os

from galip_keras.downloads.fetch import fetch, path_of
from galip_keras.downloads.sources import CLIP_WEIGHTS, CLIPS


def hub_name(source: str) -> str | None:
    """The name that OpenAI's CLIPs have on the Hugging Face hub.

    Args:
        source: string. Such as keras-hub's `"clip_vit_base_patch32"`, or
            `"openai/clip-vit-base-patch32"`, also after `hf://`.

    Returns:
        A key of `galip_keras.downloads.sources.CLIPS`, or None for anything else.
    """
    name = source.removeprefix("hf://").removeprefix("openai/").replace("_", "-")
    return name if name in CLIPS else None


def only_from_hub(source: str, name: str) -> bool:
    """Whether keras-hub need not be asked for a CLIP.

    It need not if the user means that of Hugging Face, if that is here, or if there is
    a mirror, which has nothing of Kaggle's, where keras-hub's models are.
    """
    is_here = any(path_of(f"{name}/{file}").is_file() for file in CLIP_WEIGHTS)
    return "-" in source or is_here or bool(os.environ.get("GALIP_MIRROR"))


def fetch_from_hub(name: str) -> str:
    """Return the folder of a CLIP of the Hugging Face hub, fetched the first time.

    Args:
        name: string. A key of `galip_keras.downloads.sources.CLIPS`.

    Raises:
        OSError: if a file cannot be fetched or stored.
        ValueError: if a file is not what it should be.
    """
    for file in ("vocab.json", "merges.txt"):
        folder = str(fetch(f"{name}/{file}").parent)
    wanted, older = CLIP_WEIGHTS
    if path_of(f"{name}/{older}").is_file():
        wanted = older
    try:
        fetch(f"{name}/{wanted}")
    except OSError:
        # What to do by hand is said about the first.
        with contextlib.suppress(OSError):
            fetch(f"{name}/{older}")
            return folder
        raise
    return folder
