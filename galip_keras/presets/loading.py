"""Find and load models by name: architectures, presets, run folders, hub handles."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from galip_keras import backend
from galip_keras.console import first_words
from galip_keras.downloads.sources import MODELS
from galip_keras.files import is_exported
from galip_keras.models.architectures import (
    ARCHITECTURES,
    BUNDLED,
    CONFIG,
    preset_folder,
)
from galip_keras.models.fidelity import is_faithful
from galip_keras.models.precision import PRECISIONS
from galip_keras.models.text_to_image import GALIPTextToImage, build

# In place of one of `PRECISIONS`: what is fastest, if images stay the same.
AUTO = "auto"


def load_model(
    source: str | Path, clip: str | None = None, precision: str = "float32"
) -> GALIPTextToImage:
    """Load a preset, or build an architecture.

    Args:
        source: string. A key of `ARCHITECTURES` or `BUNDLED` in
            `galip_keras.models.architectures`, or of `MODELS` in
            `galip_keras.downloads.sources`, a run folder, a preset folder, or a handle
            such as `"hf://user/model"`.
        clip: string. The CLIP of an architecture, as `text_to_image.build` takes it.
        precision: string. What the model computes in and keeps its weights in:
            `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"`, which takes bfloat16
            where that is faster, if trial images stay close to those in float32.

    Returns:
        A `GALIPTextToImage`.

    Raises:
        ValueError: if there is no such model, or it cannot be loaded.
    """
    known = (*PRECISIONS, AUTO)
    if precision not in known:
        raise ValueError(f"`precision` must be one of {', '.join(known)}")
    exact = _load(source, clip)
    chosen = backend.fast_precision() if precision == AUTO else precision
    if chosen == exact.precision:
        return exact
    model = exact.in_precision(chosen)
    if precision != AUTO:
        return model
    return model if exact.takes_prompts and is_faithful(model, exact) else exact


def _load(source: str | Path, clip: str | None) -> GALIPTextToImage:
    if source in ARCHITECTURES:
        return build(str(source), clip)
    if clip:
        raise ValueError(f"{source} brings its own CLIP: leave out `clip`")
    preset = find_preset(source)
    try:
        return GALIPTextToImage.from_preset(preset)
    except Exception as error:
        message = f"{source} could not be loaded ({first_words(error)})"
        raise ValueError(message) from error


def find_preset(source: str | Path) -> str:
    """Find the folder that keras-hub can read, and download it if it is on a hub.

    Args:
        source: string or path. A preset that ships, a released model, a preset folder,
            a run folder (which has a preset inside), or a handle such as
            `"hf://user/model"`.

    Returns:
        The preset folder as a string, or the handle itself if keras-hub reads it.

    Raises:
        ValueError: if there is no preset.
    """
    if "://" in str(source):
        return _download(str(source))
    folder = Path(preset_folder(str(source)))
    if not folder.exists():
        known = ", ".join((*BUNDLED, *MODELS, *ARCHITECTURES))
        raise ValueError(
            f"unknown model {str(source)!r}: give {known}, a preset folder, a run "
            "folder or a handle such as hf://USER/MODEL"
        )
    if not (folder / CONFIG).is_file():
        hint = "this export is for `galip sample` and `galip serve` alone"
        reason = hint if is_exported(folder) else f"there is no {CONFIG} in it"
        raise ValueError(f"{source} holds no preset: {reason}")
    return str(folder)


def _download(handle: str) -> str:
    """Download a whole preset, including the files that keras-hub does not know."""
    scheme, _, name = handle.partition("://")
    try:
        if scheme == "hf":
            return _library("huggingface_hub").snapshot_download(name)
        if scheme == "kaggle":
            return _library("kagglehub").model_download(name)
    except Exception as error:
        raise ValueError(
            f"{handle} could not be downloaded ({first_words(error)})"
        ) from error
    return handle


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"it needs {name}: pip install {name}") from error
