"""Where modules and names of earlier versions are now.

Scripts may still import by the old names, with a `DeprecationWarning`. Old presets do
not need this file: Keras finds a class by its registered name. Remove it in 0.2.
"""

import importlib
import importlib.machinery
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

# Modules that are gone, and the modules that their names are in now.
_MODULES = {
    "augmentation": ["models.augmentation"],
    "backend.devices": ["backend"],
    "callbacks": ["training.callbacks", "training.progress", "console"],
    "card": ["presets.card"],
    "checkpoints": ["training.checkpoints", "files"],
    "clip": ["models.clip", "models.random_clip", "console"],
    "datasets.birds": ["datasets.toybirds.birds"],
    "datasets.drawing": ["datasets.toybirds.drawing"],
    "datasets.pictures": ["datasets.jpeg", "images"],
    "datasets.scenery": ["datasets.toybirds.scenery"],
    "datasets.shapes": ["datasets.toybirds.shapes"],
    "editing": ["sampling.latent", "sampling.inversion"],
    "evaluation": ["metrics.evaluate", "metrics.report"],
    "exported": ["export.runtimes"],
    "gan": ["models.gan", "models.optimizers"],
    "grid": ["images"],
    "guard": ["training.collapse"],
    "journal": ["training.journal", "files"],
    "layers": ["models.layers", "models.convolutions"],
    "loading": [
        "presets.loading",
        "presets.fine_tuning",
        "presets.precision",
        "models.precision",
        "presets.sizes",
    ],
    "losses": ["models.losses"],
    "mate_d": ["models.mate_d"],
    "mate_g": ["models.mate_g"],
    "metrics.judge": ["metrics.evaluator"],
    "metrics.pictures": ["metrics.image_sets"],
    "philox": ["models.noise"],
    "prompts": ["models.prompts"],
    "pytorch": ["convert.pytorch"],
    "settings": ["training.config", "files"],
    "sharing": ["presets.push"],
    "text_to_image": [
        "models.text_to_image",
        "models.preprocessor",
        "models.backbone",
        "models.architectures",
        "models.noise",
    ],
}

# Modules that are packages now, and the modules that their names are in.
_NAMES = {
    "convert": {
        "clip_from_state": "convert.clip",
        "convert": "convert.galip",
        "discriminator_from_state": "convert.galip",
        "generator_from_state": "convert.galip",
        "read_vocabulary": "convert.clip",
    },
    "export": {"QUANTIZATIONS": "export.writers", "export": "export.writers"},
    "training": {"Run": "training.run", "train": "training.run"},
}


class Finder:
    """Finds and loads modules by their old names."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != __package__ or name not in _MODULES:
            return None
        # It has all that importing asks of a loader.
        return importlib.machinery.ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        places = _MODULES[spec.name.partition(".")[2]]
        _warn(spec.name, places)
        module = types.ModuleType(spec.name)
        found = [_import(place) for place in places]

        def look_up(name: str) -> Any:
            for place in found:
                if hasattr(place, name):
                    return getattr(place, name)
            raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = look_up
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def names(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package that has the name of an old module."""
    places = _NAMES[package.partition(".")[2]]

    def look_up(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}", [places[name]])
        return getattr(_import(places[name]), name)

    return look_up


def _import(place: str) -> types.ModuleType:
    return importlib.import_module(f"{__package__}.{place}")


def _warn(old: str, places: Sequence[str]) -> None:
    new = " and ".join(f"{__package__}.{place}" for place in places)
    warnings.warn(f"{old} is now in {new}", DeprecationWarning, stacklevel=3)
