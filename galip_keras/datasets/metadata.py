"""Read `metadata.jsonl` and `metadata.csv`, which Hugging Face's ImageFolder defined.

Their columns are `file_name` and `text`, also called `caption` or `captions`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FILES = ("metadata.jsonl", "metadata.csv")

_CAPTION_COLUMNS = ("text", "caption", "captions")


def rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the file name and the captions, none or more, of each row.

    Args:
        path: path. One of `FILES`. In JSON the captions of a row are a string, a list
            of strings or null.

    Raises:
        ValueError: If the file is malformed, with the number of the line.
    """
    read = _jsonl_rows if path.suffix == ".jsonl" else _csv_rows
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            for where, row in read(path, lines):
                yield _file_name(where, row), _captions(where, row)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from error


def _jsonl_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, dict]]:
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is not a JSON object with file_name and text")
        yield where, row


def _csv_rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, dict]]:
    reader = csv.DictReader(lines, skipinitialspace=True)
    try:
        # A file without rows must still name its columns.
        _check_columns(f"{path}, line 1", reader.fieldnames or ())
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            # The key None holds values beyond the last column.
            if None in row:
                raise ValueError(
                    f"{where} has more values than columns: put captions that contain "
                    "commas in quotes"
                )
            yield where, row
    except csv.Error as error:
        # DictReader's own count does not include the failing line.
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from error


def _check_columns(where: str, columns: Iterable[str]) -> str:
    """The name of the column of captions."""
    columns = tuple(columns)
    if "file_name" not in columns:
        raise ValueError(f"{where} has no file_name")
    for name in _CAPTION_COLUMNS:
        if name in columns:
            return name
    raise ValueError(f"{where} has no text")


def _file_name(where: str, row: dict[str, Any]) -> str:
    _check_columns(where, row)
    if not isinstance(row["file_name"], str):
        raise ValueError(f"{where}: file_name must be a string")
    return row["file_name"]


def _captions(where: str, row: dict[str, Any]) -> list[str]:
    column = _check_columns(where, row)
    captions = row[column]
    if captions is None:
        return []
    if isinstance(captions, str):
        return [captions]
    if isinstance(captions, list) and all(isinstance(text, str) for text in captions):
        return captions
    raise ValueError(f"{where}: {column} must be a string or a list of strings")
