"""The preset that a run leaves, and what its card tells of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galip_keras import __version__, backend
from galip_keras.files import write_folder
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.gan import GALIP
from galip_keras.models.text_to_image import GALIPTextToImage
from galip_keras.presets import card
from galip_keras.presets.fine_tuning import (
    DISCRIMINATOR,
    LOSS_WEIGHTS,
    PAPER,
    TRAINING,
)
from galip_keras.presets.sizes import describe
from galip_keras.training.config import TrainingConfig
from galip_keras.training.journal import last_figures
from galip_keras.training.plan import Plan
from galip_keras.training.progress import training_step


def write_preset(folder: Path, plan: Plan, model: GALIPTextToImage, gan: GALIP) -> None:
    """Write a preset with everything that fine-tuning needs, and its card.

    Args:
        folder: path. It takes the place of an earlier preset.
        plan: a `galip_keras.training.plan.Plan`.
        model: a `galip_keras.GALIPTextToImage`. The model to write.
        gan: a `galip_keras.GALIP`. Its discriminator is kept beside the model.
    """
    config = plan.config
    with backend.alone(), write_folder(folder) as temporary:
        model.save_to_preset(str(temporary))
        gan.discriminator.save_weights(temporary / DISCRIMINATOR)
        own = {name: getattr(config, name) for name in PAPER}
        (temporary / TRAINING).write_text(json.dumps(own, indent=2) + "\n")
        step = training_step(gan)
        origin = _origin(folder.parent, config, plan.num_images, step)
        card.write(temporary, describe(model), origin, earlier=folder)


def _origin(
    folder: Path, config: TrainingConfig, num_images: int, step: int
) -> dict[str, Any]:
    """Where a run's preset comes from, for its card. It names no path."""
    start = _short(config.init or config.preset)
    architecture = ARCHITECTURES.get(config.preset, {})
    clip = config.clip or architecture.get("clip", "")
    dataset = config.dataset_name
    if dataset in ("hf", "tfds"):
        dataset = config.dataset
    weights = (
        f"{name.replace('_', ' ')} {getattr(config, name):g}" for name in LOSS_WEIGHTS
    )
    return {
        "title": folder.name,
        "made": f"{'Fine-tuned from' if config.init else 'The architecture'} "
        f"`{start}`, trained with galip-keras {__version__}: {step:,} steps of "
        f"{config.images_per_update} images, {config.schedule} learning "
        f"rates {config.generator_lr:g} and {config.discriminator_lr:g}, "
        f"{', '.join(weights)}, seed {config.seed}.",
        "data": f"{num_images:,} captioned images of `{dataset}`.",
        "clip": f"that of `{start}`" if config.init or not clip else _clip(clip),
        "figures": last_figures(folder),
    }


def _clip(source: str) -> str:
    return "random weights" if source == "random" else f"`{_short(source)}`"


def _short(source: str) -> str:
    return source if "://" in source else Path(source).name
