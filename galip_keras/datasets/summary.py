"""What preparing a data set left out or did in its own way, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# In characters. CLIP reads 77 tokens, some 300 characters of English.
LONG_CAPTION = 1000

_NAMES_SHOWN = 10


def lines(metadata: Mapping[str, Any]) -> list[str]:
    """The lines of `galip_keras.datasets.report` for a builder's metadata."""
    shown = [note] if (note := metadata.get("note")) else []
    if skipped := metadata.get("skipped"):
        count = sum(len(names) for names in skipped.values())
        shown.append(f"skipped {_pictures(count)}: {reasons(skipped)}")
    if long := metadata.get("long_captions"):
        shown.append(
            f"{_pictures(len(long))} with a caption over {LONG_CAPTION} characters: "
            f"only the first 77 tokens are read: {_names(long)}"
        )
    return shown


def reasons(skipped: Mapping[str, list[str]]) -> str:
    """One line of a dict of reason to names, at most ten names a reason."""
    return "; ".join(f"{reason}: {_names(names)}" for reason, names in skipped.items())


def _pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"


def _names(names: list[str]) -> str:
    # The name of a file may hold line breaks and bytes that are no UTF-8.
    shown = [
        "".join(character if character.isprintable() else "?" for character in name)
        for name in names[:_NAMES_SHOWN]
    ]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
