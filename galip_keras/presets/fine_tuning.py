"""What a preset keeps for fine-tuning: its discriminator and its training settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from galip_keras.console import first_words, say
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.mate_d import MateD
from galip_keras.models.text_to_image import GALIPTextToImage
from galip_keras.presets.loading import find_preset

DISCRIMINATOR = "discriminator.weights.h5"
TRAINING = "training.json"

# Paper defaults.
LOSS_WEIGHTS = {
    "similarity_weight": 4.0,
    "penalty_weight": 2.0,
    "range_weight": 0.0,
    "energy_weight": 0.0,
}
PAPER = {"generator_lr": 1e-4, "discriminator_lr": 4e-4, **LOSS_WEIGHTS}


def own_settings(preset: str, init: str | None) -> dict[str, float]:
    """Learning rates and loss weights of an architecture or of a preset.

    Args:
        preset: string. The architecture, for a new model.
        init: string or None. The model to fine-tune, as `load_model` takes it.

    Returns:
        A dict with the keys of `PAPER`.

    Raises:
        ValueError: if the file with the settings is damaged.
    """
    if not init:
        return {**PAPER, **ARCHITECTURES[preset].get("training", {})}
    path = Path(find_preset(init)) / TRAINING
    if not path.is_file():
        return PAPER
    try:
        # Presets of earlier versions lack it.
        own = {"energy_weight": 0.0, **json.loads(path.read_text())}
        return {name: float(own[name]) for name in PAPER}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: repair or delete it") from error


def load_discriminator(model: GALIPTextToImage, init: str | None, preset: str) -> MateD:
    """Load the discriminator of a preset, or build a new one.

    Args:
        model: a `GALIPTextToImage`. The discriminator fits its CLIP.
        init: string or None. The model to fine-tune, as `load_model` takes it.
        preset: string. The architecture, which decides the sizes of a new
            discriminator.

    Returns:
        A `galip_keras.MateD`.

    Raises:
        ValueError: if the preset's discriminator is damaged or fits another CLIP.
    """
    clip = model.backbone.clip
    sizes = ARCHITECTURES.get(preset, {}).get("discriminator", {})
    weights = Path(find_preset(init)) / DISCRIMINATOR if init else None
    if weights is not None and weights.is_file():
        return _read_discriminator(weights, clip, sizes)
    if init:
        say(f"{init} has no {DISCRIMINATOR}: fine-tuning starts with a new one.")
    return MateD.for_clip(clip, **sizes)


def _read_discriminator(path: Path, clip: FrozenCLIP, sizes: dict[str, Any]) -> MateD:
    try:
        with h5py.File(path) as file:
            *_, channels, head_channels = file["head_conv_1/vars/0"].shape
        sizes = {"extractor_channels": channels - clip.embedding_dim, **sizes}
        network = MateD.for_clip(clip, head_channels=head_channels, **sizes)
        network.load_weights(path)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} holds no discriminator for this CLIP ({first_words(error)})"
        ) from error
    return network
