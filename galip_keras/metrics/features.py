"""Networks whose features pictures are compared by, each with its own resizing."""

import contextlib
import functools
import hashlib
import os
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops
from PIL import Image

from galip_keras.console import first_words
from galip_keras.convert.pytorch import read_state
from galip_keras.metrics import classifier, inception
from galip_keras.models.clip import FrozenCLIP, load_clip

# What `features` takes, and for whom.
FEATURES = {
    "clip": "the CLIP at hand, of the model or the scorer",
    "inception": "the network of 2015 that FID is defined by",
    "inception-clean": "the same, pictures resized as clean-fid does",
    "inception-torchvision": "torchvision's, with the input of GALIP's authors",
    "inception-keras": "that of keras.applications",
    "toybirds": "the classifier of the drawn birds",
}

# File and address of the weights that are the user's to fetch.
_FID_TOOLS = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
_TORCHVISION = "https://download.pytorch.org/models/"
_WEIGHTS = {
    "inception": (_FID_TOOLS, "pt_inception-2015-12-05-6726825d.pth"),
    "inception-clean": (_FID_TOOLS, "pt_inception-2015-12-05-6726825d.pth"),
    "inception-torchvision": (_TORCHVISION, "inception_v3_google-0cc3c7bd.pth"),
}

# Red, green and blue, of ImageNet.
_MEAN = np.array((0.485, 0.456, 0.406), "float32")
_STD = np.array((0.229, 0.224, 0.225), "float32")


class Extractor:
    """Pictures of any sizes to their features.

    Args:
        name: string. A key of `FEATURES`.
        network: `keras.Model` or callable of a float32 array of pictures, of the size
            and range that `prepare` makes, to features `(n, dim)`.
        prepare: callable of a uint8 picture `(height, width, 3)` to a float32 array.
        dim: int. The number of features of a picture.
        resize: string. How pictures are resized, in words.
        comparable: string. With what a Frechet distance in these features may be
            compared, in words.
    """

    def __init__(self, name, network, prepare, dim, resize, comparable):
        self.name = name
        self.network = network
        self.prepare = prepare
        self.dim = dim
        self.resize = resize
        self.comparable = comparable

    def __call__(self, images):
        """Features of uint8 pictures, an array or a list: float32 `(n, dim)`."""
        batch = np.stack([self.prepare(image) for image in images])
        return np.asarray(
            ops.convert_to_numpy(self.network.predict_on_batch(batch)), "float32"
        )

    @functools.cached_property
    def key(self):
        """What tells these features from others, for caches."""
        digest = hashlib.sha256(f"{self.name} {self.resize}".encode())
        for variable in self.network.variables:
            digest.update(ops.convert_to_numpy(variable).tobytes())
        return digest.hexdigest()[:16]


def extractor(name, clip=None, weights=None):
    """Builds an extractor.

    Args:
        name: string. A key of `FEATURES`.
        clip: an `Extractor` that `of_model` or `of_preset` made, for `"clip"`.
        weights: path. The file of weights of an Inception. Defaults to where PyTorch
            keeps what it downloads, which the FID tools share.

    Raises:
        ValueError: where there is no such extractor, or its weights are missing or of
            something else.
    """
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
        return _of_applications()
    if name not in FEATURES:
        raise ValueError(
            f"unknown features {name!r}: give one of {', '.join(FEATURES)}"
        )
    return _of_file(name, weights)


def of_model(clip):
    """The embeddings of the CLIP that a model stands on, as it sees pictures.

    Args:
        clip: a `galip_keras.FrozenCLIP`.
    """
    return Extractor(
        "clip",
        _Embedder(clip),
        _square(clip.image_size, _nearest),
        clip.embedding_dim,
        f"nearest neighbour to {clip.image_size} pixels, as in training",
        "only with other figures of the same CLIP",
    )


def of_preset(source):
    """The embeddings of a CLIP preset, pictures prepared as for CLIP.

    Args:
        source: string. As for `galip_keras.models.clip.load_clip`.

    Returns:
        An `Extractor`, the `galip_keras.FrozenCLIP`, and the tokenizer.

    Raises:
        ValueError: where it cannot be loaded.
    """
    backbone, tokenizer = load_clip(source)
    clip = FrozenCLIP(backbone, feature_layers=(0,), pixel_scaling="standard")
    extractor = Extractor(
        "clip",
        _Embedder(clip),
        _square(clip.image_size, _bicubic),
        clip.embedding_dim,
        f"bicubic, antialiased, to {clip.image_size} pixels",
        f"only with other figures of {source}",
    )
    return extractor, clip, tokenizer


@keras.saving.register_keras_serializable(package="galip_keras")
class _Embedder(keras.Model):
    def __init__(self, clip):
        super().__init__(name="embedder")
        self.clip = clip
        self.built = True

    def call(self, images):
        return self.clip.extract_features_and_embed(images)[1]


def _of_file(name, weights):
    address, file = _WEIGHTS[name]
    path = Path(weights or _torch_folder() / file).expanduser()
    if not path.is_file():
        raise ValueError(
            f"the features {name!r} need {file}: fetch {address}{file} to {path}, or "
            "give its path as `weights`"
        )
    state = read_state(str(path))
    if not isinstance(state, dict) or not all(
        isinstance(value, np.ndarray) for value in state.values()
    ):
        raise ValueError(f"{path} is no file of Inception's weights")
    is_torchvision = name == "inception-torchvision"
    try:
        network = inception.inception(state, is_torchvision)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    size = f"to {inception.SIZE} pixels"
    prepare, resize, comparable = {
        "inception": (
            _bilinear,
            f"bilinear, not antialiased, {size}, as pytorch-fid does",
            "with the FID of pytorch-fid, for the same pictures; not with the paper's, "
            "which used torchvision's network",
        ),
        "inception-clean": (
            _bicubic,
            f"bicubic, antialiased, {size}, as clean-fid does",
            "with clean-fid's, for the same pictures; not with the paper's",
        ),
        "inception-torchvision": (
            _bilinear,
            f"bilinear, not antialiased, {size}; then [0, 1] taken for standardised "
            "pixels, as in the authors' code",
            "with the paper's, where data, split and number of pictures are its own",
        ),
    }[name]
    scale, shift = (_STD / 0.5, (_MEAN - 0.5) / 0.5) if is_torchvision else (2, -1)
    return Extractor(
        name,
        network,
        lambda image: prepare(image, inception.SIZE) * scale + shift,
        inception.FEATURES,
        resize,
        comparable,
    )


def _torch_folder():
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home, "hub", "checkpoints")


def _of_applications():
    try:
        # Keras tells on standard output that it downloads.
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
        lambda image: 2 * _bilinear(image, inception.SIZE) - 1,
        inception.FEATURES,
        f"bilinear, not antialiased, to {inception.SIZE} pixels",
        "with no published FID: other weights",
    )


def _of_classifier():
    return Extractor(
        "toybirds",
        classifier.features(),
        _square(classifier.SIZE, _bicubic),
        classifier.FEATURES,
        f"bicubic, antialiased, to {classifier.SIZE} pixels",
        "only with other figures of the drawn birds",
    )


def _square(size, resize):
    """Resizes to a square of `size`, in [-1, 1]."""
    return lambda image: 2 * resize(image, size) - 1


def _bicubic(image, size):
    """Each channel in floating point, so that nothing is rounded."""
    channels = [
        Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
        for channel in np.moveaxis(image.astype("float32"), -1, 0)
    ]
    return np.clip(np.stack(channels, axis=-1), 0, 255) / np.float32(255)


def _nearest(image, size):
    rows, columns = (np.arange(size) * old // size for old in image.shape[:2])
    return image[rows][:, columns].astype("float32") / np.float32(255)


def _bilinear(image, size):
    """Between the centres of the two nearest pixels, also where it shrinks."""
    rows, columns = (_weights(old, size) for old in image.shape[:2])
    image = image.astype("float32") / np.float32(255)
    return np.einsum("ah,hwc,bw->abc", rows, image, columns, optimize=True)


def _weights(old, new):
    """What each old pixel counts in each new one: `(new, old)`."""
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
