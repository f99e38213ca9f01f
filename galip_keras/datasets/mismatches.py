"""Captions that are wrong in one detail: hard mismatches for the discriminator.

The caption of another picture usually differs in everything, so the discriminator can
reject it without knowing which part has which colour. Here the picture's own caption is
falsified: one to three words are replaced, or two colours are exchanged. The result is
always false, whereas the caption of a similar picture is often true of both.
"""

from __future__ import annotations

import re

import numpy as np

_COLORS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "brown",
    "black",
    "white",
    "grey",
)

# The replacements for a word. Both cannot be true of the same thing.
_OTHERS: dict[str, tuple[str, ...]] = {
    **{color: tuple(c for c in _COLORS if c != color) for color in _COLORS},
    "gray": tuple(color for color in _COLORS if color != "grey"),
    "small": ("large", "big"),
    "little": ("large", "big"),
    "large": ("small", "little"),
    "big": ("small", "little"),
    "short": ("long",),
    "long": ("short",),
    "forked": ("short", "long"),
    "pointed": ("hooked",),
    "hooked": ("pointed",),
    "raised": ("lowered",),
    "lowered": ("raised",),
    "folded": ("raised",),
}

# What may stand between the colours of a list, as in "black and white wings". The order
# of such a list carries no meaning.
_IN_A_LIST = re.compile(r"(\W|and|or|with)*", re.IGNORECASE)

# Keeps this use of a seed apart from others.
_STREAM = 20230118

_MOST_CHANGES = 3


def contradict(caption: str, rng: np.random.Generator) -> str | None:
    """Falsifies a caption in one detail.

    If a caption names several colours, two of them are exchanged half of the time.
    Otherwise one to three English words for colours, sizes or shapes are replaced.

    Args:
        caption: string.
        rng: `numpy.random.Generator`. Chooses the change.

    Returns:
        The false caption, or None if no word can be replaced.
    """
    # Words have even indices, separators odd ones.
    parts = re.split(r"(\W+)", caption)
    places = [i for i, part in enumerate(parts) if part.lower() in _OTHERS]
    if not places:
        return None
    pairs = _exchangeable(parts, places)
    if pairs and rng.integers(2):
        one, two = pairs[rng.integers(len(pairs))]
        changes = {one: parts[two], two: parts[one]}
    else:
        chosen = rng.permutation(places)[: rng.integers(1, _MOST_CHANGES + 1)]
        words = {parts[i].lower() for i in chosen}
        changes = {i: _pick(_replacements(parts[i], words), rng) for i in chosen}
    for place, word in changes.items():
        parts[place] = word
        if place >= 2 and parts[place - 2] in ("a", "an"):
            parts[place - 2] = "an" if word[0] in "aeiou" else "a"
    return "".join(parts)


def mismatched(
    captions: list[str], share: float, seed: int, numbers: list[int]
) -> list[str]:
    """Chooses a mismatched caption for each picture of a batch.

    Args:
        captions: list of strings. The captions of the pictures.
        share: float. The fraction of pictures that get their own caption, falsified.
            The others get the next caption in the batch, and so do those whose caption
            cannot be falsified.
        seed: int, not negative.
        numbers: list of ints. The position of each picture in the stream. The result
            depends on the seed and these numbers only.

    Returns:
        A list of strings.
    """
    sentences = []
    for i, (caption, number) in enumerate(zip(captions, numbers)):
        rng = np.random.default_rng((_STREAM, seed, number))
        wrong = contradict(caption, rng) if rng.random() < share else None
        sentences.append(wrong or captions[(i + 1) % len(captions)])
    return sentences


def _exchangeable(parts: list[str], places: list[int]) -> list[tuple[int, int]]:
    """Finds pairs of different colours that describe different things."""
    colored = [i for i in places if parts[i].lower() in _COLORS]
    return [
        (one, two)
        for one in colored
        for two in colored
        if one < two
        and parts[one] != parts[two]
        and not all(
            part.lower() in _COLORS or _IN_A_LIST.fullmatch(part)
            for part in parts[one:two]
        )
    ]


def _replacements(word: str, chosen: set[str]) -> tuple[str, ...]:
    """Lists the replacements for a word, without the colors replaced elsewhere.

    Otherwise two colors of a list could end up exchanged, which changes nothing.
    """
    others = _OTHERS[word.lower()]
    return tuple(w for w in others if w not in chosen or w not in _COLORS)


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]
