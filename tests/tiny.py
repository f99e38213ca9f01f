"""A tiny GALIP whose weights follow from a seed, the same on every backend."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy

from galip_keras import GALIP, FrozenCLIP, GALIPTextToImage, MateD, MateG
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.random_clip import random_clip

CLIP = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_dim": 16,
    "num_layers": 3,
    "num_heads": 2,
    "embedding_dim": 12,
    "text_hidden_dim": 16,
    "text_num_layers": 1,
    "text_num_heads": 2,
}

# For tests of a few steps that are not about compiling: TensorFlow traces a step for
# longer than it takes eight eager ones. JAX would compile every op of these.
FEW_STEPS = {"run_eagerly": keras.backend.backend() == "tensorflow"}

# Replaces `galip_tiny` where a training step has to compile fast. Plain values, which
# can be passed to another process.
ARCHITECTURE = {
    "description": "for tests",
    "clip": "random",
    "random_clip": {
        "image_size": 32,
        "patch_size": 16,
        "hidden_dim": 16,
        "num_layers": 2,
        "num_heads": 2,
        "embedding_dim": 12,
        "text_hidden_dim": 16,
        "text_num_layers": 1,
        "text_num_heads": 2,
    },
    "feature_layers": [0, 1],
    "generator": {"base_channels": 8, "bridge_channels": 8, "prompt_layers": [1]},
}


def frozen_clip(**kwargs):
    backbone, _ = random_clip(**CLIP)
    return FrozenCLIP(backbone, feature_layers=(0, 2), **kwargs)


def gan(seed=0, image_size=32, **kwargs):
    clip = frozen_clip()
    generator = MateG(
        clip,
        image_size=image_size,
        latent_dim=8,
        base_channels=4,
        bridge_channels=8,
        prompt_layers=(1, 2),
    )
    discriminator = MateD.for_clip(clip, extractor_channels=8, head_channels=4)
    model = GALIP(generator, discriminator, **kwargs)
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        fan_in = max(np.prod(variable.shape[:-1]), 1)
        variable.assign(rng.standard_normal(variable.shape) / np.sqrt(fan_in))
    return model


def compiled(fn, *args, variables=()):
    """Call `fn` compiled, if on JAX, where every kind of eager op compiles for itself.

    Values of `variables` are arguments of what is compiled, those of others constants.
    """
    if keras.backend.backend() != "jax":
        return fn(*args)
    import jax

    def stateless(values, args):
        with keras.StatelessScope(zip(variables, values)):
            return fn(*args)

    return jax.jit(stateless)([v.value for v in variables], args)


def text_to_image(spread=0.0):
    """A `GALIPTextToImage` of `ARCHITECTURE`.

    A new generator makes the same image of all texts: `spread` moves its weights.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "galip_tiny", ARCHITECTURE)
        keras.utils.set_random_seed(0)
        model = GALIPTextToImage.from_preset("galip_tiny")
    rng = np.random.default_rng(0)
    for variable in model.backbone.generator.trainable_variables:
        variable.assign(variable + spread * rng.standard_normal(variable.shape))
    return model


def batch(size=4, seed=1, image_size=32, noise=True):
    rng = np.random.default_rng(seed)
    data = {
        "images": rng.uniform(-1, 1, (size, image_size, image_size, 3)),
        "token_ids": rng.integers(1, 512, (size, 10)),
    }
    data["token_ids"][:, -1] = 514
    if noise:
        data["noise"] = rng.standard_normal((size, 8)).astype("float32")
    data["images"] = data["images"].astype("float32")
    data["token_ids"] = data["token_ids"].astype("int32")
    return data


def values(variables):
    """Copy the values of variables to arrays."""
    return [convert_to_numpy(v).copy() for v in variables]


def shared(make):
    """Return a fixture that makes a model once and resets it for each test.

    Compiling the training step takes far longer than the step.

    Args:
        make: function without arguments that returns a compiled `GALIP`.
    """
    kept = []

    @pytest.fixture
    def model():
        if not kept:
            made = make()
            variables = [*made.variables, *made.optimizer.variables]
            kept.append((made, variables, values(variables)))
        made, variables, initial = kept[0]
        for variable, value in zip(variables, initial):
            variable.assign(value)
        return made

    return model
