"""Find the columns of image names and captions in a table, whatever tool wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from galip_keras.datasets import summary

_NAMES_SHOWN = 20


class _Kind(NamedTuple):
    """What a column holds.

    Attributes:
        content: string. The content, for messages.
        option: string. The option that names the column.
        names: strings. The usual names. The first one that a table has is taken.
        others: strings. Names by other tools, in `_plain` letters. Only one may occur.
    """

    content: str
    option: str
    names: tuple[str, ...]
    others: tuple[str, ...]


_IMAGE = _Kind(
    "image names",
    "image_column",
    ("file_name",),
    ("file", "filepath", "path", "image", "imagefile", "imagename", "imagepath")
    + ("img", "imgname", "imgpath", "photo", "picture"),
)
_CAPTION = _Kind(
    "captions",
    "caption_column",
    ("text", "caption", "captions"),
    ("texts", "prompt", "prompts", "sentence", "sentences", "description")
    + ("descriptions", "captiontext", "imagecaption"),
)


class Columns(NamedTuple):
    """The positions of two columns."""

    image: int
    caption: int


def find(
    where: str, columns: Sequence[str], image_column: str = "", caption_column: str = ""
) -> Columns:
    """Find the columns of image names and captions.

    Case, spaces and punctuation in names do not count.

    Args:
        where: string. Where the table names its columns, for messages.
        columns: sequence of strings. The names of all columns.
        image_column: string. The name of the column of image names. By default it is
            found.
        caption_column: string. The name of the column of captions. By default it is
            found.

    Raises:
        ValueError: If there is no such column, or if there are several.
    """
    return Columns(
        _find(where, columns, image_column, _IMAGE),
        _find(where, columns, caption_column, _CAPTION),
    )


def _find(where: str, columns: Sequence[str], wanted: str, kind: _Kind) -> int:
    for name in (wanted,) if wanted else kind.names:
        found = [i for i, column in enumerate(columns) if column == name]
        found = found or [i for i, x in enumerate(columns) if _plain(x) == _plain(name)]
        if found:
            break
    else:
        found = [i for i, column in enumerate(columns) if _plain(column) in kind.others]
        found = [] if wanted else found
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{where} has several columns of {kind.content} "
            f"({_listed([columns[i] for i in found])}): choose one with "
            f"`{kind.option}`, or rename the others"
        )
    raise ValueError(
        f"{where} has no {wanted or kind.names[0]}, only {_listed(columns)}: name the "
        f"column of {kind.content} with `{kind.option}`, or rename it to "
        f"{kind.names[0]}"
    )


def _plain(name: str) -> str:
    """A name in lower case, without spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _listed(names: Sequence[str]) -> str:
    return summary.listed(names, _NAMES_SHOWN) or "empty lines"
