"""Recipes: what the settings of a run are where they are left out.

This module imports the standard library alone, as the settings do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# docs/training.md says where each value comes from.
RECIPES: dict[str, dict[str, Any]] = {
    "few-shot": {
        "freeze": (),
        "augmentation": ("cutout", "translation"),
        "on_collapse": "rollback",
    },
    "full": {"freeze": (), "augmentation": (), "on_collapse": "continue"},
}
DEFAULT_RECIPE = "full"

# Factor of the learning rates of the model that is fine-tuned.
_RATES = {"few-shot": 0.5, "full": 1.0}

# With fewer images than this, fine-tuning is what `few-shot` is made for.
FEW_IMAGES = 1000


def defaults(recipe: str, own: Mapping[str, float]) -> dict[str, Any]:
    """The values of the settings that are left out.

    Args:
        recipe: string. A key of `RECIPES`.
        own: mapping. Learning rates and loss weights of the model to train, as
            `galip_keras.presets.fine_tuning.own_settings` returns them.

    Returns:
        A dict, by the names of the settings.
    """
    factor = _RATES[recipe]
    scaled = {
        name: value * factor if name.endswith("_lr") else value
        for name, value in own.items()
    }
    return {**RECIPES[recipe], **scaled}
