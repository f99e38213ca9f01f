"""Models by their names: architectures, and presets that ship."""

from pathlib import Path

from galip_keras.models.clip import FrozenCLIP, load_clip
from galip_keras.models.mate_g import MateG
from galip_keras.models.random_clip import random_clip

# Architectures that `from_preset` builds without a preset folder: untrained generators
# on a CLIP that keras-hub knows, or on a random one.
ARCHITECTURES = {
    "galip_vit_base_patch32": {
        "description": "The paper's model, generator untrained, on OpenAI's ViT-B/32.",
        "clip": "clip_vit_base_patch32",
    },
    "galip_small": {
        "description": "For images of 64 pixels, on a small CLIP of your own (`clip`). "
        "What ships as toybirds.",
        "clip": "random",
        "random_clip": {
            "image_size": 64,
            "patch_size": 8,
            "hidden_dim": 128,
            "num_layers": 4,
            "num_heads": 4,
            "embedding_dim": 128,
            "text_hidden_dim": 128,
            "text_num_layers": 2,
            "text_num_heads": 4,
        },
        # With the pixels themselves, through the embedding of the patches: a small CLIP
        # overlooks much of what makes a picture sharp.
        "feature_layers": (-1, 0, 2),
        "generator": {
            "base_channels": 16,
            "bridge_channels": 32,
            "prompt_layers": (1, 2, 3),
        },
        "discriminator": {"initial_scale": 0.5},
        # A small CLIP is easily pleased: by the paper's similarity weight it would be
        # by colours that no picture can have.
        "training": {
            "generator_lr": 4e-4,
            "discriminator_lr": 8e-4,
            "similarity_weight": 1.0,
            "penalty_weight": 2.0,
            "range_weight": 10.0,
        },
    },
    "galip_tiny": {
        "description": "A tiny model on a tiny random CLIP, for tests and first steps. "
        "Its pictures mean nothing.",
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

# Presets that ship with the package, by the names of their folders.
BUNDLED = {
    "toybirds": "A small model that draws the birds of the data set toybirds, ready to "
    "use.",
}


def preset_folder(preset):
    """Where a preset of `BUNDLED` lies; any other is given back as it is."""
    if preset not in BUNDLED:
        return preset
    return str(Path(__file__).parents[1] / "presets" / preset)


def build_generator(architecture, clip=None, dtype=None):
    """Builds an untrained generator on its CLIP.

    Args:
        architecture: string. A key of `ARCHITECTURES`.
        clip: string. `"random"`, or what `load_clip` takes. Defaults to the
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
    return MateG(frozen, dtype=dtype, **spec.get("generator", {})), tokenizer
