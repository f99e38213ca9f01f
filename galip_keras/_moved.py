"""Where modules of earlier versions are now.

Scripts import by the old names, and so does Keras where an old preset's `config.json`
names the module of a class. Remove this file with version 0.2.
"""

import importlib
import importlib.abc
import importlib.machinery
import types
import warnings

_MODULES = {
    "augmentation": ("models.augmentation",),
    "callbacks": ("training.callbacks", "training.progress", "console"),
    "card": ("presets.card",),
    "checkpoints": ("training.checkpoints", "files"),
    "clip": ("models.clip", "models.random_clip", "console"),
    "datasets.birds": ("datasets.toybirds.birds",),
    "datasets.drawing": ("datasets.toybirds.drawing",),
    "datasets.pictures": ("datasets.jpeg", "images"),
    "datasets.scenery": ("datasets.toybirds.scenery",),
    "datasets.shapes": ("datasets.toybirds.shapes",),
    "editing": ("sampling.latent", "sampling.inversion"),
    "evaluation": ("metrics.evaluate", "metrics.report"),
    "exported": ("export.runtimes",),
    "gan": ("models.gan", "models.optimizers"),
    "grid": ("images",),
    "guard": ("training.collapse",),
    "journal": ("training.journal", "files"),
    "layers": ("models.layers", "models.convolutions"),
    "loading": ("presets.loading",),
    "losses": ("models.losses",),
    "mate_d": ("models.mate_d",),
    "mate_g": ("models.mate_g",),
    "metrics.judge": ("metrics.evaluator",),
    "metrics.pictures": ("metrics.image_sets",),
    "philox": ("models.noise",),
    "prompts": ("models.prompts",),
    "pytorch": ("convert.pytorch",),
    "settings": ("training.config", "files"),
    "sharing": ("presets.push",),
    "text_to_image": (
        "models.text_to_image",
        "models.preprocessor",
        "models.backbone",
        "models.architectures",
        "models.noise",
    ),
}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module by its old name, with a `DeprecationWarning`."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        if package != __package__ or name not in _MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec):
        places = [f"{__package__}.{x}" for x in _MODULES[spec.name.partition(".")[2]]]
        warnings.warn(
            f"{spec.name} is now {' and '.join(places)}",
            DeprecationWarning,
            stacklevel=2,
        )
        module = types.ModuleType(spec.name, f"Deprecated: see {', '.join(places)}.")
        found = [importlib.import_module(place) for place in places]

        def look_up(name):
            for place in found:
                if hasattr(place, name):
                    return getattr(place, name)
            raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")

        module.__getattr__ = look_up
        return module

    def exec_module(self, module):
        pass
