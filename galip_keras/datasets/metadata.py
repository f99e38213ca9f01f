"""Read tables of image names and captions: JSON Lines, CSV, TSV and Parquet.

Hugging Face's ImageFolder defined `metadata.jsonl`, `metadata.csv` and
`metadata.parquet` with the columns `file_name` and `text`. `columns.py` knows the names
that other tools give to these columns.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from galip_keras.console import first_words
from galip_keras.datasets import columns

EMPTY_ROW = "empty row"

STEMS = ("metadata", "captions")
SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")

_DELIMITERS = (",", ";", "\t", "|")

# What may come before the header of a CSV file: empty rows, and Excel's own line.
_PREAMBLE = re.compile(r"[\s,;|]*|sep=.\s*")

# Follows the last line of a CSV file. In quotes that are never closed it is no row.
_END = "\x1cend of the table\x1c"

# Where a row is, and the values of its columns of image names and captions.
_Values = tuple[str, Any, Any]


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: string. Its place in the table, such as "line 3".
        file_name: string. Empty if there is none.
        captions: list of strings.
        problem: string. Why something in the row cannot be used, or empty.
    """

    where: str
    file_name: str
    captions: list[str]
    problem: str


def is_table(name: str, *stems: str) -> bool:
    """Whether a file is a table with one of these names, by default any of `STEMS`."""
    stem, suffix = os.path.splitext(os.path.basename(name).lower())
    return stem in (stems or STEMS) and suffix in SUFFIXES


def rank(name: str) -> int:
    """The place of a table's suffix in `SUFFIXES`."""
    return SUFFIXES.index(os.path.splitext(name)[1].lower())


def rows(path: Path, image_column: str = "", caption_column: str = "") -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        path: path. A file with one of `SUFFIXES`.
        image_column: string. As for `columns.find`.
        caption_column: string. As for `columns.find`.

    Raises:
        ValueError: If the file is malformed, with the number of the line, or if its
            columns are not clear.
    """
    suffix = path.suffix.lower()
    chosen = image_column, caption_column
    if suffix == ".parquet":
        values = _parquet_values(path, *chosen)
    elif suffix == ".jsonl":
        values = _jsonl_values(path, *chosen)
    else:
        values = _csv_values(path, *chosen)
    for where, file_name, captions in values:
        yield _row(where, file_name, captions)


def _row(where: str, file_name: Any, captions: Any) -> Row:
    found = captions if isinstance(captions, list) else [captions]
    found = [caption for caption in found if not _is_blank(caption)]
    texts = [caption for caption in found if isinstance(caption, str)]
    if isinstance(file_name, str) and file_name.strip():
        problem = "caption is not text" if found and not texts else ""
        return Row(where, file_name, texts, problem)
    if not _is_blank(file_name):
        return Row(where, "", texts, "file name is not text")
    return Row(where, "", texts, "no file name" if found else EMPTY_ROW)


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    # NaN stands for a missing value in pandas. It is the only one unlike itself.
    return value is None or (isinstance(value, float) and value != value)


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file in UTF-8, or in UTF-16 if it begins with the mark of it."""
    with open(path, "rb") as file:
        mark = file.read(2)
    is_utf_16 = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    with open(path, encoding=encoding, newline="") as file:
        yield file


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    try:
        with open_text(path) as file:
            yield iter(file)
    except UnicodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from error


def _jsonl_values(path: Path, *chosen: str) -> Iterator[_Values]:
    with _lines(path) as lines:
        found = list(_json_objects(path, lines))
    # Rows may lack keys.
    keys = list(dict.fromkeys(key for _, row in found for key in row))
    first = found[0][0] if found else 1
    image, caption = columns.find(f"{path}, line {first}", keys, *chosen)
    for number, row in found:
        yield f"line {number}", row.get(keys[image]), row.get(keys[caption])


def _json_objects(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict]]:
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
        yield number, row


def _csv_values(path: Path, *chosen: str) -> Iterator[_Values]:
    reader, first = csv.reader(()), 1
    try:
        with _lines(path) as lines:
            first, header = _first_line(lines)
            delimiter, names = _header(path, header, chosen)
            image, caption = columns.find(f"{path}, line {first}", names, *chosen)
            lines = itertools.chain(lines, [_END])
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            number = first
            for values in reader:
                if values == [_END]:
                    break
                if values and values[-1].endswith(_END):
                    raise ValueError(
                        f"{path}, line {number + 1}: a quote is opened and never closed"
                    )
                number = first + reader.line_num
                if any(value.strip() for value in values[len(names) :]):
                    raise ValueError(
                        f"{path}, line {number} has more values than columns: put "
                        f"captions that contain {delimiter!r} in quotes"
                    )
                if values:
                    values += [""] * len(names)
                    yield f"line {number}", values[image], values[caption]
    except csv.Error as error:
        number = first + reader.line_num
        raise ValueError(f"{path}, line {number}: {error}") from error


def _first_line(lines: Iterator[str]) -> tuple[int, str]:
    """Read up to the header of a CSV file. Return its number and the line."""
    numbered = enumerate(lines, start=1)
    return next((x for x in numbered if not _PREAMBLE.fullmatch(x[1])), (1, ""))


def _header(path: Path, line: str, chosen: tuple[str, ...]) -> tuple[str, list[str]]:
    """The delimiter of a CSV file and its columns, from its header."""
    headers = []
    for delimiter in _DELIMITERS:
        reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True)
        names = [name.strip() for name in next(reader, [])]
        with contextlib.suppress(ValueError):
            columns.find(str(path), names, *chosen)
            return delimiter, names
        headers.append((delimiter, names))
    return max(headers, key=lambda header: len(header[1]))


def _parquet_values(path: Path, *chosen: str) -> Iterator[_Values]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"{path} needs pyarrow: pip install 'galip-keras[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            pair = columns.find(str(path), schema.names, *chosen)
            if pyarrow.types.is_struct(schema.types[pair.image]):
                raise ValueError(f"{path} holds images: save them as files beside it")
            table = file.read([schema.names[i] for i in pair])
    except pyarrow.ArrowException as error:
        raise ValueError(
            f"{path} cannot be read as Parquet ({first_words(error)})"
        ) from error
    names, captions = (table[schema.names[i]].to_pylist() for i in pair)
    for number, values in enumerate(zip(names, captions), start=1):
        yield f"row {number}", *values
