"""GALIP: text-to-image GANs on a frozen CLIP, for Keras 3.

Public names load on first use, so importing the package is cheap.
"""

import importlib
import sys
from typing import Any

from galip_keras import _moved, _registration

__version__ = "0.1.0"

_MODULES = {
    "BridgeFeaturePredictor": "models.mate_g",
    "FrozenCLIP": "models.clip",
    "GALIP": "models.gan",
    "GALIPBackbone": "models.backbone",
    "GALIPTextToImage": "models.text_to_image",
    "GALIPTextToImagePreprocessor": "models.preprocessor",
    "MateD": "models.mate_d",
    "MateG": "models.mate_g",
    "PromptPredictor": "models.mate_g",
    "Run": "training.run",
    "TrainingConfig": "training.config",
    "evaluate": "metrics.evaluate",
    "noise": "models.noise",
    "sample": "sampling.sampler",
    "train": "training.run",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from galip_keras.console import needs_tensorflow

    with needs_tensorflow(f"galip_keras.{name}"):
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])


sys.meta_path.append(_moved.Finder())
_registration.register_with_keras_hub()
