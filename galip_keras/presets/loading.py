"""Models by their names: architectures, presets that ship, folders, hub handles."""

import functools
import importlib
import json
import math
import os
from pathlib import Path

import h5py
import keras
import numpy as np

from galip_keras import backend
from galip_keras.console import first_words, say
from galip_keras.models.architectures import ARCHITECTURES, BUNDLED, preset_folder
from galip_keras.models.mate_d import MateD
from galip_keras.models.text_to_image import GALIPTextToImage, build

CONFIG = "config.json"
PRESET = "preset"

# What a preset has besides, for fine-tuning.
DISCRIMINATOR = "discriminator.weights.h5"
TRAINING = "training.json"

# The paper's, for what has none of its own.
RATES = {"generator_lr": 1e-4, "discriminator_lr": 4e-4}
LOSS_WEIGHTS = {"similarity_weight": 4.0, "penalty_weight": 2.0, "range_weight": 0.0}
PAPER = {**RATES, **LOSS_WEIGHTS}


def load_model(source, clip=None):
    """Builds or loads a model, whatever it is called.

    Args:
        source: string. A key of `ARCHITECTURES` or `BUNDLED` in
            `galip_keras.models.architectures`, a run folder, a preset folder, or a
            handle such as `"hf://user/model"`.
        clip: string. For an architecture, as `text_to_image.build` takes it.

    Returns:
        A `GALIPTextToImage`.

    Raises:
        ValueError: where there is no such model or it cannot be loaded.
    """
    if source in ARCHITECTURES:
        return build(source, clip)
    if clip:
        raise ValueError(f"{source} brings its own CLIP: leave the clip out")
    preset = find_preset(source)
    try:
        return GALIPTextToImage.from_preset(preset)
    except Exception as error:
        message = f"{source} could not be loaded ({first_words(error)})"
        raise ValueError(message) from error


def find_preset(source):
    """The preset that keras-hub reads: the one inside where `source` is a run folder.

    Raises:
        ValueError: where there is none.
    """
    if "://" in str(source):
        return _download(source)
    folder = Path(preset_folder(source))
    if (folder / "checkpoints").is_dir() or (folder / PRESET).is_dir():
        if not (folder / PRESET / CONFIG).is_file():
            raise ValueError(
                f"{source} is a run without preset/, which is written when training "
                "ends: resume it, or give another model"
            )
        folder = folder / PRESET
    if not folder.exists():
        known = ", ".join((*BUNDLED, *ARCHITECTURES))
        raise ValueError(
            f"unknown model {source!r}: give {known}, a preset folder, a run folder or "
            "a handle such as hf://USER/MODEL"
        )
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{source} holds no preset: there is no {CONFIG} in it")
    return str(folder)


def _download(handle):
    """The folder that a preset of a hub is downloaded to: all of it, with what is only
    ours. Other addresses keras-hub reads by itself.
    """
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


def _library(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"it needs {name}: pip install {name}") from error


def describe(model):
    """Sizes and parameter counts of a `GALIPTextToImage`, as a dict of plain values."""
    generator, clip = model.backbone.generator, model.backbone.clip
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
        "generator_parameters": num_parameters(generator.trainable_variables),
        "discriminator_parameters": num_parameters(
            MateD.for_clip(clip).trainable_variables
        ),
        "clip_parameters_frozen": num_parameters(clip.variables),
    }


def num_parameters(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def own_settings(preset, init):
    """Learning rates and weights in the losses, where none are given."""
    if not init:
        return {**PAPER, **ARCHITECTURES[preset].get("training", {})}
    path = Path(find_preset(init)) / TRAINING
    if not path.is_file():
        return PAPER
    try:
        own = json.loads(path.read_text())
        return {name: float(own[name]) for name in PAPER}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: delete it or mend it") from error


def load_discriminator(model, init, preset):
    """A new discriminator, or to fine-tune a preset the one that lies in it.

    Args:
        model: a `GALIPTextToImage`. The discriminator fits its CLIP.
        init: string or None. As `load_model` takes it: whose discriminator to load.
        preset: string. The architecture; a new discriminator has its sizes.

    Returns:
        A `galip_keras.MateD`.

    Raises:
        ValueError: where the preset's discriminator is damaged, or fits another CLIP.
    """
    clip = model.backbone.clip
    sizes = ARCHITECTURES.get(preset, {}).get("discriminator", {})
    weights = Path(find_preset(init)) / DISCRIMINATOR if init else None
    if weights is None or not weights.is_file():
        if init:
            say(f"{init} has no {DISCRIMINATOR}: fine-tuning starts with a new one.")
        return MateD.for_clip(clip, **sizes)
    try:
        with h5py.File(weights) as file:
            *_, channels, head_channels = file["head_conv_1/vars/0"].shape
        sizes = {"extractor_channels": channels - clip.embedding_dim, **sizes}
        network = MateD.for_clip(clip, head_channels=head_channels, **sizes)
        network.load_weights(weights)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{weights} holds no discriminator for this CLIP ({first_words(error)})"
        ) from error
    return network


def set_precision(model, precision):
    """Sets the dtype policy of a model and all that is in it; weights stay float32."""
    precision = keras.dtype_policies.get(precision)
    for layer in model._flatten_layers():
        layer.dtype_policy = precision
    if not backend.supports_attention(precision.compute_dtype):
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.MultiHeadAttention):
                set_precision(layer, "float32")


def halve(folder):
    """Stores the weights of a preset in half precision. Keras reads them as before.

    Raises:
        ValueError: where a weight is too large for float16.
    """
    for path in Path(folder).glob("*.weights.h5"):
        with h5py.File(path) as file, h5py.File(f"{path}.half", "w") as half:
            half.attrs.update(file.attrs)
            file.visititems(functools.partial(_copy_halved, half))
        os.replace(f"{path}.half", path)


def _copy_halved(half, name, item):
    if not isinstance(item, h5py.Dataset):
        half.require_group(name).attrs.update(item.attrs)
    elif item.dtype != "float32":
        half[name] = item[()]
    elif np.abs(values := item[()]).max(initial=0) > np.finfo("float16").max:
        raise ValueError(f"{name} is too large for half precision")
    else:
        half[name] = values.astype("float16")
