"""Captions that are wrong in a detail: hard mismatches for the discriminator.

The caption of another image differs in everything, so a discriminator that has only
seen such mismatches need not learn which part has which colour. Here, one to three
words of the image's own caption are replaced, or two of its colours are exchanged. The
result is false for the image, whereas the caption of a similar image is often true of
both.
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

# Replacements for a word: both cannot be true of the same thing.
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

# "Black and white wings": the order of the colours says nothing.
_IN_A_LIST = re.compile(r"(\W|and|or|with)*", re.IGNORECASE)

# Keeps these random numbers apart from other uses of the same seed.
_STREAM = 20230118

_MOST_CHANGES = 3


def contradict(caption: str, rng: np.random.Generator) -> str | None:
    """Make a caption wrong in a detail.

    Half of the captions that name several colours have two of them exchanged. In the
    others, one to three words for colours, sizes and simple shapes are replaced.

    Args:
        caption: string.
        rng: `numpy.random.Generator`. Chooses what is changed.

    Returns:
        Another caption, or None if no word can be replaced.
    """
    # Words are at even places, separators at odd ones.
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
    """Choose a caption for each image of a batch that is not true of it.

    Args:
        captions: list of strings. The images' own captions.
        share: float. The fraction of images whose own caption is made wrong, if it can
            be. The others get the next caption of the batch.
        seed: int, not negative.
        numbers: list of ints. The place of each image in the stream. Together with the
            seed, it determines the result.

    Returns:
        A list of strings.
    """
    chosen = []
    for i, (caption, number) in enumerate(zip(captions, numbers)):
        rng = np.random.default_rng((_STREAM, seed, number))
        wrong = contradict(caption, rng) if rng.random() < share else None
        chosen.append(wrong or captions[(i + 1) % len(captions)])
    return chosen


def _exchangeable(parts: list[str], places: list[int]) -> list[tuple[int, int]]:
    """Places of two different colours that belong to different things."""
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
    """Words that can replace a word, except colours that are replaced elsewhere.

    Otherwise the colours of a list could be exchanged, which changes nothing.
    """
    others = _OTHERS[word.lower()]
    return tuple(w for w in others if w not in chosen or w not in _COLORS)


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]
