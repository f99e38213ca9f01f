"""What is asked for: prompts, seeds, and the files to make of them."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

# The most images, or seeds, that one request may ask for.
MOST = 1_000_000

# The seeds of a sheet.
SHEET = tuple(range(16))

# By format: the suffix of its files, and how Pillow writes them.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": (".png", {}),
    "jpeg": (".jpg", {"quality": 95}),
    "webp": (".webp", {"quality": 95, "lossless": False}),
}

# CLIP reads the first 77 tokens, and a JPEG has room for 64 KiB of text.
_LONGEST = 2000


def check_prompt(prompt: str) -> str:
    """Return a prompt that can be drawn and written to a file.

    Raises:
        ValueError: if it is blank, too long or not valid Unicode.
    """
    if not prompt.strip():
        raise ValueError("a prompt is blank: say what the image shows.")
    if len(prompt) > _LONGEST:
        raise ValueError(f"a prompt has more than {_LONGEST} characters.")
    if re.search("[\ud800-\udfff]", prompt):
        raise ValueError("a prompt is not valid UTF-8.")
    return prompt


def parse_seeds(text: str) -> list[int]:
    """Read seeds such as `3`, `0-7` or `1,5,9-12`.

    Returns:
        A list of ints, each once.

    Raises:
        ValueError: if the text means something else.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,99})(?:-([0-9]{1,99}))?\s*", part)
        if match is None:
            raise ValueError(f"{text!r} is not like 3, 0-7 or 1,5,9.")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= 2**63:
            raise ValueError(f"{part!r} must ascend and stay below 2**63.")
        if len(seeds) + last - first >= MOST:
            raise ValueError(f"more than {MOST} seeds.")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def parse_shard(text: str) -> slice:
    """Read a shard such as `2/8`, as a slice of a list.

    Raises:
        ValueError: if the text means something else.
    """
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} is not like 1/8, 2/8 to 8/8.")
    return slice(int(match[1]) - 1, None, int(match[2]))


# A prompt and its own seeds, or None where it takes those of the request.
Row = tuple[str, "list[int] | None"]


def read_prompts(path: str, file: IO[str] | None = None) -> list[Row]:
    """Read prompts: text with a prompt per line, `.json`, `.jsonl` or `.csv`.

    Args:
        path: string. Its suffix tells what the file holds.
        file: text file. The file, if it is open already.

    Raises:
        ValueError: if a line cannot be read; the message tells which.
    """
    if file is None:
        with open(path, encoding="utf-8-sig") as opened:
            return read_prompts(path, opened)
    parsers: dict[str, Callable[[Iterable[str]], Iterable[dict[str, Any]]]]
    parsers = {".json": _parse_json, ".jsonl": _parse_jsonl, ".csv": _parse_csv}
    parse = parsers.get(Path(path).suffix.lower(), _parse_text)
    number = 0

    def counted(lines: Iterable[str]) -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(lines, 1):  # noqa: B007, the errors tell it
            yield line

    try:
        return [_row(content) for content in parse(counted(file))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text ({error}).") from error
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def _parse_text(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    return ({"prompt": line} for line in lines if line.strip())


def _parse_jsonl(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in filter(str.strip, lines):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        yield _object(content)


def _parse_json(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    text = "".join(lines)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Some programs write a value per line under this name, too.
        if "\n" not in text.strip():
            raise ValueError('it is no JSON array such as ["an owl"].') from error
        yield from _parse_jsonl(text.splitlines())
        return
    yield from map(_object, content if isinstance(content, list) else [content])


def _object(content: Any) -> dict[str, Any]:
    if isinstance(content, str):
        return {"prompt": content}
    if not isinstance(content, dict):
        raise ValueError('it is no JSON object such as {"prompt": "an owl"}.')
    return content


def _parse_csv(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
    if reader.fieldnames is not None and "prompt" not in reader.fieldnames:
        raise ValueError("there is no column `prompt`.")
    for row in reader:
        if None in row:
            raise ValueError('a value too many: put "quotes" around what has commas.')
        yield {name: value or None for name, value in row.items()}


def _row(content: dict[str, Any]) -> Row:
    prompt = content.get("prompt")
    if not isinstance(prompt, str):
        raise ValueError("`prompt` is missing, or no string.")
    prompt = check_prompt(prompt.strip())
    given = [x for x in ("seed", "seeds") if content.get(x) is not None]
    if not given:
        return prompt, None
    if len(given) > 1:
        raise ValueError("`seed` and `seeds` exclude each other.")
    (name,) = given
    seeds = content[name]
    if isinstance(seeds, str):
        seeds = parse_seeds(seeds)
    elif name == "seed":
        seeds = [seeds]
    if not isinstance(seeds, list) or not seeds or not all(map(_is_seed, seeds)):
        raise ValueError(f"`{name}` must be whole, from 0 to 2**63 - 1.")
    if name == "seed" and len(seeds) > 1:
        raise ValueError("`seed` is one: call several `seeds`.")
    return prompt, seeds


def _is_seed(value: Any) -> bool:
    # True is an int, too.
    return type(value) is int and 0 <= value < 2**63


class Output(NamedTuple):
    """A file to make: an image, or for several seeds a sheet of them."""

    prompt: str
    seeds: tuple[int, ...]

    @property
    def columns(self) -> int:
        return math.isqrt(len(self.seeds))

    def name(
        self,
        plus: Sequence[str] = (),
        minus: Sequence[str] = (),
        others: Mapping[str, Any] | None = None,
    ) -> str:
        """The name of the file without its suffix.

        It has the words of the prompt, a hash if those are not all of it, the
        settings in `others`, which differ from their defaults, and the seed.
        """
        parts: list[Any] = [self.prompt, plus, minus, *([others] if others else [])]
        whole = json.dumps(parts) if plus or minus or others else self.prompt
        plain = unicodedata.normalize("NFKD", self.prompt).encode("ascii", "ignore")
        words = re.findall("[a-z0-9]+", plain.decode().lower())
        slug = "-".join(words)[:60].strip("-")
        end = f"-{self.seeds[0]}" if len(self.seeds) == 1 else ""
        # A sheet must not have the name of the grid, or of the image of a seed.
        is_taken = not end and re.search("^grid$|-[0-9]+$", slug)
        if slug.replace("-", " ") != whole or is_taken:
            digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
            slug = f"{slug}-{digest}" if slug else digest
        return slug + "".join(map(_label, (others or {}).items())) + end


def _label(setting: tuple[str, Any]) -> str:
    """A setting as part of a file name, such as `-truncation0-5`."""
    text = "".join(map(str, setting)).lower()
    return "-" + re.sub("[^a-z0-9]+", "-", text)[-30:].strip("-")


def list_outputs(
    rows: Sequence[Row], seeds: Sequence[int], candidates: int = 1
) -> list[Output]:
    """List the files that are asked for, each once.

    Args:
        rows: sequence of prompts with their own seeds, as `read_prompts` returns them.
        seeds: sequence of ints, for prompts without seeds of their own. If it is empty,
            those get sheets.
        candidates: int. Images drawn per seed, each of which needs a seed of its own.

    Raises:
        ValueError: if that is more than can be done.
    """
    if sum(len(own or seeds or [0]) for _, own in rows) > MOST:
        raise ValueError(f"more than {MOST} images: ask for them in parts.")
    outputs: dict[Output, None] = {}
    for prompt, own in rows:
        parts: list[tuple[int, ...]] = [(seed,) for seed in own or seeds]
        parts = parts or [SHEET]
        outputs.update(dict.fromkeys(Output(prompt, part) for part in parts))
    highest = max(max(output.seeds) for output in outputs)
    if (highest + 1) * candidates > 2**63:
        raise ValueError(
            f"seed {highest} has no {candidates} candidates below 2**63: give a "
            "smaller one."
        )
    return list(outputs)
