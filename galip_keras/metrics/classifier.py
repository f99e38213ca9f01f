"""The network that reads the attributes of a drawn bird off its picture.

It has seen drawn birds alone, neither CLIP nor generated ones. `examples/toybirds` in
the repository trains it.
"""

from pathlib import Path

import keras
from keras import layers

from galip_keras.datasets.toybirds.birds import ATTRIBUTES

SIZE = 64
FEATURES = 128

# Where it ships.
FILE = Path(__file__).parents[1] / "presets" / "toybirds_classifier.weights.h5"
_POOLED = "features"
_FILTERS = ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1), (FEATURES, 2), (FEATURES, 1))


def build():
    """An untrained one: pictures in [-1, 1] to logits by attribute."""
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


def load():
    """The trained one that ships with the package."""
    model = build()
    model.load_weights(FILE)
    return model


def features(model=None):
    """A model of pictures `(n, 64, 64, 3)` to features `(n, 128)`.

    Args:
        model: what `build` or `load` returned. Defaults to the one that ships.
    """
    model = model or load()
    return keras.Model(model.input, model.get_layer(_POOLED).output)
