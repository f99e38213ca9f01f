"""Types of arguments that several commands take."""

import re

import click

from galip_keras.sampling import requests


class Parsed(click.ParamType):
    """A value that a function of the package reads or refuses.

    Args:
        name: string. What the value is.
        parse: callable of a string. Raises a ValueError for what it cannot read.
    """

    def __init__(self, name, parse):
        self.name = name
        self._parse = parse

    def convert(self, value, param, ctx):
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_parts(text):
    """`bridge,0,2-3` as the numbers that `latent.mix` has for parts."""
    parts = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,3})(?:-([0-9]{1,3}))?\s*", part)
        if part.strip() == "bridge":
            parts.add(0)
        elif match and int(match[1]) <= int(match[2] or match[1]):
            parts.update(range(int(match[1]) + 1, int(match[2] or match[1]) + 2))
        else:
            raise ValueError(f"{text!r} is not like bridge, 2-4 or bridge,0,2.")
    return sorted(parts)


PROMPT = Parsed("prompt", requests.check_prompt)
SEEDS = Parsed("seeds", requests.parse_seeds)
SHARD = Parsed("shard", requests.parse_shard)
PARTS = Parsed("blocks", _parse_parts)
