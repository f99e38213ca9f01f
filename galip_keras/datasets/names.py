"""Match the names of files in tables with the names on a disk."""

from __future__ import annotations

import contextlib
import functools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath


def match(wanted: Sequence[Sequence[str]], names: Iterable[str]) -> list[str | None]:
    """Find files by name.

    If no file has exactly the name, a file with the same letters in another form or
    case is taken: macOS decomposes letters with accents, and neither it nor Windows
    tells lower case from upper case. It must be the only one, and no other wanted file.

    Args:
        wanted: sequence of sequences of strings. The spellings of the name of each
            wanted file, the likeliest first.
        names: iterable of strings. The files.

    Returns:
        A list of names, or None for each wanted file that was not found.
    """
    known = set(names)
    found = [next((x for x in written if x in known), None) for written in wanted]
    similar = defaultdict(list)
    for name in known.difference(found):
        similar[_folded(name)].append(name)
    only = {key: alike[0] for key, alike in similar.items() if len(alike) == 1}
    for i, written in enumerate(wanted):
        if found[i] is None:
            keys = (_folded(spelling) for spelling in written)
            found[i] = next((only[key] for key in keys if key in only), None)
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def through_links(
    wanted: Iterable[Sequence[str]], names: Sequence[str], root: Path
) -> list[list[str]]:
    """Add the names of files in folders that have another name, such as a link.

    Args:
        wanted: iterable of sequences of strings. As for `match`.
        names: sequence of strings. The files, relative to `root`.
        root: path.

    Returns:
        A list of lists of spellings.
    """
    folders = dict.fromkeys(map(os.path.dirname, names))
    own = {os.path.realpath(root / folder): folder for folder in folders}

    @functools.cache
    def known(folder: str) -> str | None:
        # A name in a table may hold characters that no path can.
        with contextlib.suppress(ValueError):
            return own.get(os.path.realpath(root / folder))
        return None

    found = []
    for written in wanted:
        places = [(known(os.path.dirname(x)), os.path.basename(x)) for x in written]
        others = ["/".join(filter(None, x)) for x in places if x[0] is not None]
        found.append([*written, *others])
    return found


def spellings(name: str, root: Path, folder: PurePosixPath) -> list[str]:
    """What a file name in a table may mean, the likeliest first.

    Args:
        name: string. A path relative to the table, or absolute, with the separators of
            any system.
        root: path. The folder of the dataset, resolved.
        folder: path. The folder of the table, relative to `root`.

    Returns:
        A list of names relative to `root`, with `/` between their parts. It is empty if
        the file is outside of `root`.
    """
    stripped = name.strip()
    written = dict.fromkeys((name, stripped, stripped.replace("\\", "/")))
    inside = (_inside(spelling, root, folder) for spelling in written)
    return [spelling for spelling in inside if spelling]


def _inside(name: str, root: Path, folder: PurePosixPath) -> str | None:
    if os.path.isabs(name):
        folder, name = PurePosixPath(), _relative(name, root)
    elif PureWindowsPath(name).is_absolute():
        name = ".."
    parts: list[str] = []
    for part in (folder / name).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return None
    return "/".join(parts)


def _relative(name: str, root: Path) -> str:
    """An absolute path as a path relative to `root`, or `..` if it is outside."""
    # The path may lead through a link, and the file itself may be one.
    paths = [PurePath(name)]
    with contextlib.suppress(ValueError):
        paths.append(Path(os.path.realpath(paths[0].parent), paths[0].name))
    inside = (path.relative_to(root) for path in paths if path.is_relative_to(root))
    return next((path.as_posix() for path in inside), "..")
