"""Named models: architectures, and where presets are."""

from pathlib import Path
from typing import Any

import keras

from galip_keras._registration import released_preset
from galip_keras.downloads.sources import MODELS
from galip_keras.models.bundled import BUNDLED, bundled_folder
from galip_keras.models.clip import FrozenCLIP, load_clip
from galip_keras.models.mate_g import MateG
from galip_keras.models.precision import set_precision
from galip_keras.models.random_clip import random_clip
from galip_keras.models.tokenizer import CLIPTokenizer

# Architectures that `from_preset` builds without a preset folder: an untrained
# generator on a CLIP that keras-hub knows, or on a random one.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "galip_vit_base_patch32": {
        "description": "The paper's model, generator untrained, on OpenAI's ViT-B/32.",
        "clip": "clip_vit_base_patch32",
    },
    "galip_small": {
        "description": "For images of 64 pixels, on a small CLIP of your own (`clip`).",
        "clip": "random",
        "random_clip": {
            "image_size": 64,
            "patch_size": 8,
            # As many as a patch has numbers: with fewer, fine lines get lost.
            "hidden_dim": 192,
            "num_layers": 4,
            "num_heads": 6,
            "embedding_dim": 128,
            "text_hidden_dim": 128,
            "text_num_layers": 2,
            "text_num_heads": 4,
        },
        # The patch embedding (-1) shows the pixels themselves: the blocks of a small
        # CLIP overlook much of what makes an image sharp.
        "feature_layers": (-1, 0, 2),
        "generator": {
            "base_channels": 16,
            "bridge_channels": 32,
            "prompt_layers": (1, 2, 3),
        },
        "discriminator": {"initial_scale": 0.5},
        # A small CLIP is easily fooled. With the paper's similarity weight, the
        # generator would satisfy it with colours outside the pixel range. Even with a
        # lower one it settles on one image of a caption without the energy score.
        "training": {
            "generator_lr": 4e-4,
            "discriminator_lr": 8e-4,
            "similarity_weight": 1.0,
            "penalty_weight": 2.0,
            "range_weight": 10.0,
            "energy_weight": 5.0,
        },
    },
    "galip_tiny": {
        "description": "A tiny model on a tiny random CLIP, for tests and first steps. "
        "Its images mean nothing.",
        "clip": "random",
        "random_clip": {
            "image_size": 64,
            "patch_size": 16,
            "hidden_dim": 64,
            "num_layers": 4,
            "num_heads": 2,
            "embedding_dim": 32,
            "text_hidden_dim": 64,
            "text_num_layers": 2,
            "text_num_heads": 2,
        },
        "feature_layers": (0, 1, 3),
        "generator": {
            "base_channels": 16,
            "bridge_channels": 32,
            "prompt_layers": (1, 2, 3),
        },
    },
}

# What a preset folder and a run folder hold.
CONFIG = "config.json"
PRESET = "preset"
CHECKPOINTS = "checkpoints"


def preset_folder(preset: str | Path) -> str:
    """Return the folder of a preset.

    Args:
        preset: string or path. A name in `BUNDLED`, a name in
            `galip_keras.downloads.sources.MODELS`, which is fetched and converted the
            first time unless there is a file or folder of that name, a run folder,
            which has a preset inside, or any other preset, which is returned as it is.

    Raises:
        ValueError: if a run has no preset yet, or if the licence of what would have to
            be fetched was not accepted.
        OSError: if something cannot be fetched or stored.
    """
    if preset in BUNDLED:
        return str(bundled_folder(str(preset)))
    if preset in MODELS and not Path(preset).exists():
        return released_preset(str(preset))
    inside = Path(preset) / PRESET
    if not (inside.is_dir() or (inside.parent / CHECKPOINTS).is_dir()):
        return str(preset)
    if not (inside / CONFIG).is_file():
        raise ValueError(
            f"{preset} is a run without preset/, which is written when training ends: "
            "resume it, or give another model"
        )
    return str(inside)


def build_generator(
    architecture: str,
    clip: str | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> tuple[MateG, CLIPTokenizer]:
    """Build an untrained generator on a CLIP.

    Args:
        architecture: string. A key of `ARCHITECTURES`.
        clip: string. `"random"`, or a source for `load_clip`. Defaults to the
            architecture's own.
        dtype: string or `keras.DTypePolicy`.

    Returns:
        A tuple of a `galip_keras.MateG` and a `keras_hub.models.CLIPTokenizer`.
    """
    spec = ARCHITECTURES[architecture]
    clip = clip or spec["clip"]
    if clip == "random":
        backbone, tokenizer = random_clip(**spec.get("random_clip", {}), dtype=dtype)
    else:
        backbone, tokenizer = load_clip(clip, dtype=dtype)
    feature_layers = spec.get("feature_layers", (1, 4, 8))
    frozen = FrozenCLIP(backbone, feature_layers=feature_layers)
    generator = MateG(frozen, dtype=dtype, **spec.get("generator", {}))
    if dtype is not None:
        set_precision(generator, dtype)
    return generator, tokenizer
