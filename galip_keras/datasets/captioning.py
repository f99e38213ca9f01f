"""Find the captions of the images in a folder, wherever they are.

Names are relative to the folder of the dataset, with `/` between their parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from galip_keras.datasets import metadata, names, sidecars, summary
from galip_keras.datasets.records import Config, Skipped

_Captioned = Iterator[tuple[str, list[str]]]


class Files(NamedTuple):
    """The files of a split.

    Attributes:
        root: path. The folder of the dataset, resolved.
        folder: path. The folder of the split, relative to `root`.
        images: list of strings.
        others: list of strings. All other files.
    """

    root: Path
    folder: PurePosixPath
    images: list[str]
    others: list[str]


def captioned(files: Files, config: Config, skipped: Skipped) -> _Captioned:
    """Yield the images that have captions, with their captions.

    Args:
        files: the `Files` of a split.
        config: a `Config`, which may say where the captions are.
        skipped: a `Skipped`. Whatever is left out is added to it.

    Raises:
        ValueError: If there are no captions, or if a table is malformed.
    """
    if config.caption:
        return ((name, [config.caption]) for name in files.images)
    if config.caption_from:
        return _from_folders(files, skipped)
    return _from_files(files, config, skipped)


def _from_folders(files: Files, skipped: Skipped) -> _Captioned:
    for name in files.images:
        folder = PurePosixPath(name).parent
        if folder == files.folder:
            skipped["in no subfolder"].append(name)
        else:
            yield name, [folder.name.replace("_", " ")]


def _from_files(files: Files, config: Config, skipped: Skipped) -> _Captioned:
    texts = sidecars.find(files.images, files.others)
    tables = _tables(files, texts, config)
    if not tables:
        _check_texts(files, texts, config)
    captions = _read_tables(files, tables, config, skipped)
    folders = {PurePosixPath(table).parent for table in tables}

    def has_table(name: str) -> bool:
        return not folders.isdisjoint(PurePosixPath(name).parents)

    for name in files.images:
        found = captions.get(name, [])
        if name not in captions:
            if has_table(name) or name not in texts:
                skipped["no caption"].append(name)
                continue
            found = sidecars.read(files.root / texts[name])
            if found is None:
                skipped["caption is not UTF-8"].append(name)
        if found is not None:
            yield name, found
    used = set(texts.values())
    strays = [x for x in files.others if not has_table(x) and x not in used]
    sidecars.skip_strays(strays, files.images, files.others, skipped)


def _tables(files: Files, texts: dict[str, str], config: Config) -> list[str]:
    """The tables to read, at most one in a folder."""
    tables = [name for name in files.others if metadata.is_table(name, "metadata")]
    # Text files beside images come before captions.csv.
    closed = {PurePosixPath(table).parent for table in tables}
    if not config.caption_column and not config.image_column:
        closed.update(
            parent for name in texts for parent in PurePosixPath(name).parents
        )
    tables += [
        name
        for name in files.others
        if metadata.is_table(name, "captions")
        and PurePosixPath(name).parent not in closed
    ]
    seen: dict[PurePosixPath, str] = {}
    for table in sorted(tables, key=metadata.rank):
        folder, name = PurePosixPath(table).parent, PurePosixPath(table).name
        if folder in seen:
            raise ValueError(
                f"{files.root / folder} has both {seen[folder]} and {name}: keep one"
            )
        seen[folder] = name
    return tables


def _check_texts(files: Files, texts: dict[str, str], config: Config) -> None:
    """Raise an error if a split without tables has no captions, or needs a table."""
    folder = files.root / files.folder
    for option in ("image_column", "caption_column"):
        if getattr(config, option):
            raise ValueError(
                f"{folder} has no table such as metadata.csv: leave out `{option}`"
                f"{found_instead(files.others)}"
            )
    if not texts:
        raise ValueError(
            f"{folder} has no captions: add metadata.jsonl, metadata.csv or a NAME.txt "
            f"beside every image, or give `caption` or `caption_from`"
            f"{found_instead(files.others)}"
        )


def found_instead(others: list[str]) -> str:
    """The end of a message about missing files: those that were found instead."""
    return f" (found {summary.listed(others)})" if others else ""


def _read_tables(
    files: Files, tables: list[str], config: Config, skipped: Skipped
) -> dict[str, list[str] | None]:
    """Map images to their captions, or to None if those cannot be used."""
    rows = list(_named_rows(files, tables, config, skipped))
    captions: dict[str, list[str] | None] = {}
    missing: dict[str, None] = {}
    wanted = names.through_links((x for _, x in rows), files.images, files.root)
    matches = names.match(wanted, files.images)
    for (row, spellings), name in zip(rows, matches):
        if name is None:
            missing[spellings[-1]] = None
        elif row.problem:
            skipped[row.problem].append(name)
            captions.setdefault(name, None)
        else:
            captions[name] = (captions.get(name) or []) + row.captions
    others = set(files.others)
    for name in missing:
        is_other = name in others
        skipped[sidecars.UNREAD if is_other else "no image"].append(name)
    return captions


def _named_rows(
    files: Files, tables: list[str], config: Config, skipped: Skipped
) -> Iterator[tuple[metadata.Row, list[str]]]:
    """Yield the rows of tables, with the spellings of the name of each one's image."""
    for table in tables:
        columns = config.image_column, config.caption_column
        for row in metadata.rows(files.root / table, *columns):
            if not row.file_name:
                skipped[row.problem].append(f"{table}, {row.where}")
                skipped.num_notes += row.problem == metadata.EMPTY_ROW
                continue
            folder = PurePosixPath(table).parent
            spellings = names.spellings(row.file_name, files.root, folder)
            inside = [x for x in spellings if _is_below(x, files.folder)]
            if inside:
                yield row, inside
            else:
                skipped["outside the folder"].append(row.file_name)


def _is_below(name: str, folder: PurePosixPath) -> bool:
    return PurePosixPath(name).is_relative_to(folder)
