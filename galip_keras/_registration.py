"""What the floors above do for those below, found by name when it is needed.

Registers the model's classes with Keras once keras-hub is imported.

`keras_hub.models.TextToImage.from_preset` finds a class by its registered name, so the
class must have been imported. Importing `galip_keras` alone must stay cheap.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

_LIBRARY = "keras_hub"
_PACKAGE = "galip_keras.models"


class Finder:
    """Finds keras-hub as others do, and registers the classes after it is imported."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                execute(module)
                register()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Import the model's classes, unless one of them is importing keras-hub."""
    if _PACKAGE not in sys.modules:
        importlib.import_module(f"{_PACKAGE}.text_to_image")


def register_with_keras_hub() -> None:
    """Register the classes now if keras-hub is imported, or as soon as it is."""
    if _LIBRARY in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, Finder())


def released_preset(name: str) -> str:
    """The preset folder of a model of `downloads.sources.MODELS`, fetched if needed.

    Converting stands on a higher floor than the models that are asked for by name.
    """
    released = importlib.import_module("galip_keras.convert.released")
    return str(released.fetch(name))
