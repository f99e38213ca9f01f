"""What is asked for: sentences, seeds, and the files to make of them."""

import csv
import hashlib
import json
import math
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import click

MOST = 1_000_000

# The seeds of a sheet.
SHEET = tuple(range(16))

# CLIP reads the first 77 tokens, and a JPEG has room for 64 KiB of facts.
_LONGEST = 2000


class Sentence(click.ParamType):
    """A string that says something."""

    name = "sentence"

    def convert(self, value, param, ctx):
        if not value.strip():
            self.fail("a prompt is blank: say what the picture shows.", param, ctx)
        if len(value) > _LONGEST:
            self.fail(f"a prompt has more than {_LONGEST} characters.", param, ctx)
        if re.search("[\ud800-\udfff]", value):
            self.fail("a prompt is not valid UTF-8.", param, ctx)
        return value


class Seeds(click.ParamType):
    """`3`, `0-7` or `1,5,9-12` as a list of ints, each once."""

    name = "seeds"

    def convert(self, value, param, ctx):
        seeds: dict[int, None] = {}
        for part in value.split(","):
            match = re.fullmatch(r"\s*([0-9]{1,99})(?:-([0-9]{1,99}))?\s*", part)
            if match is None:
                self.fail(f"{value!r} is not like 3, 0-7 or 1,5,9.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last or last >= 2**63:
                self.fail(f"{part!r} must ascend and stay below 2**63.", param, ctx)
            if len(seeds) + last - first >= MOST:
                self.fail(f"more than {MOST} seeds.", param, ctx)
            seeds.update(dict.fromkeys(range(first, last + 1)))
        return list(seeds)


class Shard(click.ParamType):
    """`2/8` as a slice of a list."""

    name = "shard"

    def convert(self, value, param, ctx):
        match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", value)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is not like 1/8, 2/8 to 8/8.", param, ctx)
        return slice(int(match[1]) - 1, None, int(match[2]))


def read_prompts(file):
    """Reads a file of prompts: text, `.jsonl` or `.csv`.

    Args:
        file: string. Its path; `"-"` is standard input.

    Returns:
        A list of pairs of a prompt and its own seeds, a list of ints or None.
    """
    parse = {".jsonl": _objects, ".csv": _records}.get(Path(file).suffix.lower(), _text)
    number = 0

    def counted(lines):
        nonlocal number
        for number, line in enumerate(lines, 1):  # noqa: B007, the errors tell it
            yield line

    try:
        with click.open_file(file, encoding="utf-8-sig") as lines:
            return [_row(content) for content in parse(counted(lines))]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"{file} cannot be read as UTF-8 text ({error})."
        ) from error
    except (ValueError, csv.Error, click.BadParameter) as error:
        raise click.UsageError(f"{file}, line {number}: {error}") from error


def _text(lines):
    return ({"prompt": line} for line in lines if line.strip())


def _objects(lines):
    for line in filter(str.strip, lines):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise ValueError('it is no JSON object such as {"prompt": "an owl"}.')
        yield content


def _records(lines):
    reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
    if reader.fieldnames is not None and "prompt" not in reader.fieldnames:
        raise ValueError("there is no column `prompt`.")
    for row in reader:
        if None in row:
            raise ValueError('a value too many: put "quotes" around what has commas.')
        yield {name: value or None for name, value in row.items()}


def _row(content):
    prompt = content.get("prompt")
    if not isinstance(prompt, str):
        raise ValueError("`prompt` is missing, or no string.")
    prompt = Sentence().convert(prompt.strip(), None, None)
    given = [x for x in ("seed", "seeds") if content.get(x) is not None]
    if not given:
        return prompt, None
    if len(given) > 1:
        raise ValueError("`seed` and `seeds` exclude each other.")
    (name,) = given
    seeds = content[name]
    if isinstance(seeds, str):
        seeds = Seeds().convert(seeds, None, None)
    elif name == "seed":
        seeds = [seeds]
    if not isinstance(seeds, list) or not seeds or not all(map(_is_seed, seeds)):
        raise ValueError(f"`{name}` must be whole, from 0 to 2**63 - 1.")
    if name == "seed" and len(seeds) > 1:
        raise ValueError("`seed` is one: call several `seeds`.")
    return prompt, seeds


def _is_seed(value):
    # True is an int, too.
    return type(value) is int and 0 <= value < 2**63


class Output(NamedTuple):
    """A file: a picture, or where there are several seeds a sheet of them."""

    prompt: str
    seeds: tuple[int, ...]

    @property
    def columns(self):
        return math.isqrt(len(self.seeds))

    def name(self, plus=(), minus=()):
        """A file name: the words, a hash where they are not all of it, and the seed."""
        whole = json.dumps([self.prompt, plus, minus]) if plus or minus else self.prompt
        plain = unicodedata.normalize("NFKD", self.prompt).encode("ascii", "ignore")
        words = re.findall("[a-z0-9]+", plain.decode().lower())
        slug = "-".join(words)[:60].strip("-")
        end = f"-{self.seeds[0]}" if len(self.seeds) == 1 else ""
        # A sheet is not called as the grid is, or as a picture of a seed.
        is_taken = not end and re.search("^grid$|-[0-9]+$", slug)
        if slug.replace("-", " ") != whole or is_taken:
            digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
            slug = f"{slug}-{digest}" if slug else digest
        return slug + end


def list_outputs(rows, seeds, candidates=1):
    """All files that are asked for, each once.

    Args:
        rows: list of pairs, as of `read_prompts`.
        seeds: list of ints, of the prompts that have none of their own. If it is empty,
            they get sheets.
        candidates: int. A seed must leave room for that many of its own.
    """
    if sum(len(own or seeds or [0]) for _, own in rows) > MOST:
        raise click.UsageError(f"more than {MOST} pictures: ask for them in parts.")
    outputs: dict[Output, None] = {}
    for prompt, own in rows:
        parts = [(seed,) for seed in own or seeds] or [SHEET]
        outputs.update(dict.fromkeys(Output(prompt, part) for part in parts))
    highest = max(max(output.seeds) for output in outputs)
    if (highest + 1) * candidates > 2**63:
        raise click.UsageError(
            f"seed {highest} has no {candidates} candidates below 2**63: give a "
            "smaller one."
        )
    return list(outputs)
