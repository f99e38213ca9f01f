"""A network that reads the attributes of a drawn bird from its image.

It was trained on drawn birds only, neither on CLIP nor on generated images, by
`examples/toybirds` in the repository.
"""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from galip_keras.datasets.toybirds.birds import ATTRIBUTES

SIZE = 64
FEATURES = 128

FILE = Path(__file__).parents[1] / "presets" / "toybirds_classifier.weights.h5"
_POOLED = "features"
_FILTERS = ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1), (FEATURES, 2), (FEATURES, 1))


def build() -> keras.Model:
    """An untrained classifier: images in [-1, 1] to a dict of logits per attribute."""
    images = x = keras.Input((SIZE, SIZE, 3))
    options = {"data_format": "channels_last", "padding": "same", "use_bias": False}
    for filters, strides in _FILTERS:
        x = layers.Conv2D(filters, 3, strides, **options)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D(name=_POOLED, data_format="channels_last")(x)
    logits = {
        name: layers.Dense(len(values), name=name)(x)
        for name, values in ATTRIBUTES.items()
    }
    return keras.Model(images, logits)


def load() -> keras.Model:
    """The trained classifier that ships with the package."""
    model = build()
    model.load_weights(FILE)
    return model


def features(model: keras.Model | None = None) -> keras.Model:
    """A model from images `(n, 64, 64, 3)` to features `(n, 128)`.

    Args:
        model: what `build` or `load` returned. Defaults to `load()`.
    """
    model = model or load()
    return keras.Model(model.input, model.get_layer(_POOLED).output)
