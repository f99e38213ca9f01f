"""Networks whose features images are compared by, each with its own resizing."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from PIL import Image

from galip_keras import backend
from galip_keras.backend import Tensor
from galip_keras.console import first_words
from galip_keras.convert.pytorch import read_state
from galip_keras.downloads.fetch import fetch
from galip_keras.metrics import classifier, inception
from galip_keras.metrics.config import ALIASES, FEATURES
from galip_keras.models.clip import FrozenCLIP

# The mean and standard deviation of ImageNet: red, green and blue.
_MEAN = np.array((0.485, 0.456, 0.406), "float32")
_STD = np.array((0.229, 0.224, 0.225), "float32")

_Prepare = Callable[[np.ndarray], np.ndarray]
_Resize = Callable[[np.ndarray, int], np.ndarray]


class Extractor:
    """A network from images of any size to features.

    Args:
        name: string. One of `galip_keras.metrics.config.FEATURES`.
        network: `keras.Model` from a float32 array of images, in the size and range
            that `prepare` makes, to features `(n, dim)`.
        prepare: callable from a uint8 image `(height, width, 3)` to a float32 array.
        dim: int. The number of features per image.
        resize: string. How images are resized, in words.
        comparable: string. What a Frechet distance in these features may be compared
            with, in words.
    """

    def __init__(
        self,
        name: str,
        network: Any,
        prepare: _Prepare,
        dim: int,
        resize: str,
        comparable: str,
    ) -> None:
        self.name = name
        self.network = network
        # Keras would compile it everywhere, on PyTorch for a minute.
        network.jit_compile = backend.should_jit(network)
        self.prepare = prepare
        self.dim = dim
        self.resize = resize
        self.comparable = comparable

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Features of uint8 images, an array or a list: float32 `(n, dim)`."""
        batch = np.stack([self.prepare(image) for image in images])
        return np.asarray(
            ops.convert_to_numpy(self.network.predict_on_batch(batch)), "float32"
        )

    @functools.cached_property
    def key(self) -> str:
        """A name for these features in caches: it changes with the weights."""
        digest = hashlib.sha256(f"{self.name} {self.resize}".encode())
        for variable in self.network.variables:
            digest.update(ops.convert_to_numpy(variable).tobytes())
        return digest.hexdigest()[:16]


def build_extractor(
    name: str,
    clip: Extractor | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Extractor:
    """Build an extractor.

    Args:
        name: string. One of `galip_keras.metrics.config.FEATURES` or `ALIASES`.
        clip: an `Extractor` that `of_model` or `of_preset` returned, for `"clip"`.
        weights: path. The file of Inception weights. By default it is where PyTorch
            keeps its downloads, which the FID tools share, or is fetched.

    Raises:
        ValueError: If there is no such extractor, or if its weights cannot be fetched
            or belong to another network.
    """
    name = ALIASES.get(name, name)
    if name == "clip":
        if clip is None:
            raise ValueError(
                "a folder of images has no CLIP of its own to measure by: give a CLIP "
                "preset as `scorer`, or other `features`"
            )
        return clip
    if name == "toybirds":
        return _of_classifier()
    if name == "inception-keras":
        return _of_keras_applications()
    if name not in FEATURES:
        raise ValueError(
            f"unknown features {name!r}: give one of {', '.join((*FEATURES, *ALIASES))}"
        )
    return _of_file(name, weights)


def of_model(clip: FrozenCLIP) -> Extractor:
    """The embeddings of a model's own CLIP, images resized as in training."""
    return Extractor(
        "clip",
        _Embedder(clip),
        _square(clip.image_size, _nearest),
        clip.embedding_dim,
        f"nearest neighbour to {clip.image_size} pixels, as in training",
        "only with other figures of the same CLIP",
    )


def of_preset(clip: FrozenCLIP, preset: str) -> Extractor:
    """The embeddings of the CLIP of a preset, images resized as CLIP's authors do."""
    return Extractor(
        "clip",
        _Embedder(clip),
        _square(clip.image_size, _bicubic),
        clip.embedding_dim,
        f"bicubic, antialiased, to {clip.image_size} pixels",
        f"only with other figures of {preset}",
    )


@keras.saving.register_keras_serializable(package="galip_keras")
class _Embedder(keras.Model):
    def __init__(self, clip: FrozenCLIP) -> None:
        super().__init__(name="embedder")
        self.clip = clip
        self.built = True

    def call(self, images: Tensor) -> Tensor:
        return self.clip.extract_features_and_embed(images)[1]


def _of_classifier() -> Extractor:
    return Extractor(
        "toybirds",
        classifier.features(),
        _square(classifier.SIZE, _bicubic),
        classifier.FEATURES,
        f"bicubic, antialiased, to {classifier.SIZE} pixels",
        "only with other figures of the drawn birds",
    )


def _of_keras_applications() -> Extractor:
    try:
        # Keras reports its download on standard output.
        with contextlib.redirect_stdout(sys.stderr):
            network = keras.applications.InceptionV3(
                include_top=False,
                pooling="avg",
                input_shape=(inception.SIZE, inception.SIZE, 3),
            )
    except Exception as error:
        raise ValueError(
            "the weights of keras.applications.InceptionV3 could not be downloaded "
            f"({first_words(error)})"
        ) from error
    return Extractor(
        "inception-keras",
        network,
        _square(inception.SIZE, _bilinear),
        inception.FEATURES,
        f"bilinear, not antialiased, to {inception.SIZE} pixels",
        "with no published FID: other weights",
    )


def _square(size: int, resize: _Resize) -> _Prepare:
    """Resize to a square of `size` pixels, in [-1, 1]."""
    return lambda image: 2 * resize(image, size) - 1


def _standardised_square(size: int, resize: _Resize) -> _Prepare:
    """Take pixels in [0, 1] for standardised ones, and map those to [-1, 1]."""
    scale, shift = _STD / 0.5, (_MEAN - 0.5) / 0.5
    return lambda image: resize(image, size) * scale + shift


def _bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """Each channel in floating point, so that nothing is rounded."""
    channels = [
        np.asarray(
            Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
        )
        for channel in np.moveaxis(image.astype("float32"), -1, 0)
    ]
    return np.clip(np.stack(channels, axis=-1), 0, 255) / np.float32(255)


def _nearest(image: np.ndarray, size: int) -> np.ndarray:
    rows, columns = (np.arange(size) * old // size for old in image.shape[:2])
    return image[rows][:, columns].astype("float32") / np.float32(255)


def _bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Interpolate between the two nearest pixels, even when the image shrinks."""
    rows, columns = (_weights(old, size) for old in image.shape[:2])
    image = image.astype("float32") / np.float32(255)
    return np.einsum("ah,hwc,bw->abc", rows, image, columns, optimize=True)


def _weights(old: int, new: int) -> np.ndarray:
    """The weight of each old pixel in each new one: `(new, old)`."""
    # In float32, rounded as PyTorch rounds.
    centers = np.arange(new, dtype="float32") + np.float32(0.5)
    place = np.maximum(np.float32(old / new) * centers - np.float32(0.5), 0)
    left = np.minimum(place.astype(int), old - 1)
    right = np.minimum(left + 1, old - 1)
    part = place - left.astype("float32")
    weights = np.zeros((new, old), "float32")
    np.add.at(weights, (np.arange(new), left), 1 - part)
    np.add.at(weights, (np.arange(new), right), part)
    return weights


class _Published(NamedTuple):
    """Inception weights that can be fetched, and how images enter the network."""

    file: str
    resize: _Resize
    resize_text: str
    comparable: str
    is_torchvision: bool = False


_FID_TOOLS = "pt_inception-2015-12-05-6726825d.pth"
_TORCHVISION = "inception_v3_google-0cc3c7bd.pth"
_SIZE = f"to {inception.SIZE} pixels"
_PUBLISHED = {
    "inception": _Published(
        _FID_TOOLS,
        _bilinear,
        f"bilinear, not antialiased, {_SIZE}, as pytorch-fid does",
        "with the FID of pytorch-fid, for the same images; not with the paper's, "
        "which used torchvision's network",
    ),
    "inception-clean": _Published(
        _FID_TOOLS,
        _bicubic,
        f"bicubic, antialiased, {_SIZE}, as clean-fid does",
        "with clean-fid's, for the same images; not with the paper's",
    ),
    "inception-torchvision": _Published(
        _TORCHVISION,
        _bilinear,
        f"bilinear, not antialiased, {_SIZE}; then [0, 1] taken for standardised "
        "pixels, as in the authors' code",
        "with the paper's, if dataset, split and number of images are the same",
        is_torchvision=True,
    ),
}


def _of_file(name: str, weights: str | os.PathLike[str] | None) -> Extractor:
    published = _PUBLISHED[name]
    square = _standardised_square if published.is_torchvision else _square
    return Extractor(
        name,
        _read_inception(name, weights),
        square(inception.SIZE, published.resize),
        inception.FEATURES,
        published.resize_text,
        published.comparable,
    )


def _read_inception(name: str, weights: str | os.PathLike[str] | None) -> keras.Model:
    file = _PUBLISHED[name].file
    path = _find(file, weights)
    state = read_state(str(path))
    if not isinstance(state, dict) or not all(
        isinstance(value, np.ndarray) for value in state.values()
    ):
        raise ValueError(f"{path} is not {file}: delete it to fetch it again")
    try:
        return inception.inception(state, _PUBLISHED[name].is_torchvision)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _find(file: str, weights: str | os.PathLike[str] | None) -> Path:
    """The file of weights: the one given, PyTorch's, or one that is fetched."""
    path = Path(weights or _torch_folder() / file).expanduser()
    if path.is_file():
        return path
    if weights:
        raise ValueError(f"there is no file {path}: leave out `weights` to fetch it")
    try:
        return fetch(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}, or give its path as `weights`") from error


def _torch_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home, "hub", "checkpoints")
