"""Weights from a recipe, and the outputs of the authors' code for them.

`../shared/reference/README.md` has the recipe. No weight is stored: each follows from
its name and a seed.
"""

import functools
import hashlib
import json
import math
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[2] / "shared" / "reference"
SEED = 2301


def draw(name, shape):
    """Draw standard normal numbers from a name."""
    digest = hashlib.sha256(f"{SEED}:{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return rng.standard_normal(shape, dtype="float32")


def tensor(name, shape):
    """Make the tensor of a name (`netG.fc_code.weight`), in PyTorch's layout."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "logit_scale":
        return np.float32(2.6592)
    x = draw(name, shape)
    if leaf in ("gamma", "beta"):
        return 0.3 + 0.1 * x
    if leaf in ("positional_embedding", "class_embedding") or name.endswith(
        "token_embedding.weight"
    ):
        return 0.02 * x
    if len(shape) == 1:
        if leaf == "weight" or name.endswith("fc_gamma.linear2.bias"):
            return 1 + 0.1 * x
        return 0.02 * x
    first_is_input = leaf in ("proj", "text_projection")
    fan_in = shape[0] if first_is_input else math.prod(shape[1:])
    gain = 1.0
    if name.startswith("netG.to_rgb."):
        gain = 0.015
    elif name.startswith("netC."):
        gain = 0.5
    return gain * x / np.float32(math.sqrt(fan_in))


def shapes():
    return json.loads((FOLDER / "shapes.json").read_text())


def state(network):
    """Make the state dict of `clip`, `netG`, `netD` or `netC`."""
    vit = "mapping.CLIP_ViT."
    tensors = {}
    for name, shape in shapes()[network].items():
        source = f"{network}.{name}"
        if network == "netG" and name.startswith(vit):
            source = "clip.visual." + name.removeprefix(vit)
        tensors[name] = tensor(source, shape)
    return tensors


def channels_last(x):
    """`(..., channels, height, width)` to `(..., height, width, channels)`."""
    return np.moveaxis(x, -3, -1)


def real_images(low):
    """Enlarge images to 256x256: bilinear, half-pixel centres, clipped to [-1, 1]."""
    size = low.shape[-1]
    centres = (np.arange(256) + 0.5) * size / 256 - 0.5
    below = np.floor(centres).astype(int)
    weight = (centres - below).astype("float32")
    matrix = np.zeros((256, size), "float32")
    rows = np.arange(256)
    np.add.at(matrix, (rows, np.clip(below, 0, size - 1)), 1 - weight)
    np.add.at(matrix, (rows, np.clip(below + 1, 0, size - 1)), weight)
    images = np.einsum("ip,bcpq,jq->bijc", matrix, low, matrix)
    return np.clip(images, -1, 1)


@functools.cache
def forward():
    return dict(np.load(FOLDER / "forward.npz"))


@functools.cache
def train_step():
    return json.loads((FOLDER / "train_step.json").read_text())


@functools.cache
def after_step():
    return dict(np.load(FOLDER / "after_step.npz"))
