"""Describe in words what the preparation of a dataset left out or found odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES_SHOWN = 10


def lines(metadata: Mapping[str, Any]) -> list[str]:
    """The lines of `galip_keras.datasets.report` for a builder's metadata."""
    shown = [note] if (note := metadata.get("note")) else []
    if skipped := metadata.get("skipped"):
        count = sum(len(names) for names in skipped.values())
        shown.append(f"skipped {_images(count)}: {reasons(skipped)}")
    if long := metadata.get("long_captions"):
        shown.append(
            f"{_images(len(long))} with a caption over 77 tokens, of which only the "
            f"first 77 are read: {listed(long)}"
        )
    return shown


def reasons(skipped: Mapping[str, list[str]]) -> str:
    """One line for a dict of reasons to names, with at most ten names per reason."""
    return "; ".join(f"{reason}: {listed(names)}" for reason, names in skipped.items())


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def listed(names: Sequence[str], count: int = _NAMES_SHOWN) -> str:
    """The first `count` names, and how many more there are."""
    # The name of a file may contain line breaks and bytes that are not UTF-8.
    shown = [
        "".join(character if character.isprintable() else "?" for character in name)
        for name in names[:count]
    ]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
