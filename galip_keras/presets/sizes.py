"""Sizes and parameter counts of a model, for cards, plans and `galip info`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras

from galip_keras.models.mate_d import MateD
from galip_keras.models.text_to_image import GALIPTextToImage


def describe(model: GALIPTextToImage) -> dict[str, Any]:
    """Sizes and parameter counts of a `GALIPTextToImage`, as plain values."""
    generator, clip = model.backbone.generator, model.backbone.clip
    discriminator = MateD.for_clip(clip)
    num_frozen = num_parameters(clip.variables)
    return {
        "image_size": generator.image_size,
        "latent_dim": generator.latent_dim,
        "base_channels": generator.base_channels,
        "prompt_layers": list(generator.prompt_layers),
        "clip_image_size": clip.image_size,
        "clip_grid_size": clip.grid_size,
        "clip_hidden_dim": clip.hidden_dim,
        "clip_num_layers": clip.num_layers,
        "clip_embedding_dim": clip.embedding_dim,
        "clip_feature_layers": list(clip.feature_layers),
        "clip_pixel_scaling": clip.pixel_scaling,
        # An averaged generator has no trainable variables.
        "generator_parameters": num_parameters(generator.variables) - num_frozen,
        "discriminator_parameters": num_parameters(discriminator.trainable_variables),
        "clip_parameters_frozen": num_frozen,
    }


def num_parameters(variables: Iterable[keras.Variable]) -> int:
    """The number of scalars in some variables."""
    return sum(math.prod(variable.shape) for variable in variables)
