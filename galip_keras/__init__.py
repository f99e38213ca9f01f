"""GALIP: text-to-image GANs on a frozen CLIP, for Keras 3.

The public names load on first use: importing the package costs nothing.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "BridgeFeaturePredictor": "mate_g",
    "FrozenCLIP": "clip",
    "GALIP": "gan",
    "GALIPBackbone": "text_to_image",
    "GALIPTextToImage": "text_to_image",
    "GALIPTextToImagePreprocessor": "text_to_image",
    "MateD": "mate_d",
    "MateG": "mate_g",
    "PromptPredictor": "mate_g",
    "evaluate": "evaluation",
    "noise": "text_to_image",
    "train": "training",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)


def __dir__():
    return sorted([*globals(), *_MODULES])
