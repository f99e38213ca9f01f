"""The images and captions of a run: whether they are still those that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galip_keras import datasets
from galip_keras.console import say
from galip_keras.files import write_text
from galip_keras.training.config import TrainingConfig
from galip_keras.training.plan import Plan

# The entry of `config.json` about them.
DATA = "data"

# Settings that say where they are. A dataset may move together with its run.
_PLACES = ("dataset", "captions")


def facts(plan: Plan) -> dict[str, Any]:
    """What identifies the images and captions of a plan, wherever they are stored."""
    from galip_keras.datasets.fingerprint import fingerprint

    return {"fingerprint": fingerprint(plan.builder), "images": plan.num_images}


def without_places(
    config: TrainingConfig, earlier: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The earlier settings of a run, without those that a move may have changed.

    Args:
        config: a `TrainingConfig`, the present settings.
        earlier: mapping. The content of the run's `config.json`.
    """
    kinds = {str(x).partition(":")[0] for x in (config.dataset, earlier.get("dataset"))}
    if len(kinds) > 1 or not (DATA in earlier or config.allow_changed_data):
        return earlier
    return {name: value for name, value in earlier.items() if name not in _PLACES}


def check(plan: Plan, earlier: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Compare the images and captions of a run with those that it began with.

    Args:
        plan: a `Plan`.
        earlier: mapping. The content of the run's `config.json`, empty for a new run.
        found: dict. The `facts` of the plan.

    Returns:
        Whether they are new to the run.

    Raises:
        ValueError: If they have changed and `allow_changed_data` is false.
    """
    config, known = plan.config, earlier.get(DATA)
    places = {name: earlier[name] for name in _PLACES if name in earlier}
    moved = config.changes_from(places)
    if known == found:
        if moved:
            say(f"The data have moved, unchanged: {'; '.join(moved)}.")
        return False
    if not earlier:
        return True
    if known is None and not moved:
        # The run is of a version that did not keep them.
        return False
    change = "the images or captions have changed since this run began"
    if isinstance(known, Mapping):
        change += f" ({known.get('images')} images then, {found['images']} now)"
    if not config.allow_changed_data:
        raise ValueError(
            f"{change}: restore them, or go on with the present ones with "
            "`allow_changed_data`"
        )
    say(f"Warning: {change}.")
    return True


def write_report(plan: Plan, path: Path, is_shown: bool) -> None:
    """Write what was left out of the data or odd about them.

    Args:
        plan: a `Plan`.
        path: path. The file to write.
        is_shown: bool. Whether to tell the user as well.
    """
    lines = datasets.report(plan.builder)
    for line in lines if is_shown else ():
        say(f"Data: {line}")
    text = "\n".join(lines) or "nothing was left out"
    write_text(path, f"{text}\n")
