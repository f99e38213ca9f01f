"""The attributes of cartoon birds, and captions that name them.

A bird is a function of its seed. Its attributes are drawn independently and uniformly,
except for the held-out pairs: no body colour occurs with one particular wing colour and
one particular crown colour. `drawing.draw` makes the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np

COLORS = (
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

# The background says what the bird does: it flies in the sky, sits on a branch, swims
# on water and stands in front of a plain background. The pose is that of the wings, so
# that flipping an image keeps it.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "body": COLORS,
    "wing": COLORS,
    "crown": COLORS,
    "belly": COLORS,
    "beak_color": ("yellow", "orange", "red", "black"),
    "beak_length": ("short", "long"),
    "beak_shape": ("pointed", "hooked"),
    "tail": ("short", "long", "forked"),
    "size": ("small", "large"),
    "pose": ("lowered", "raised"),
    "background": ("sky", "branch", "water", "plain"),
}

# Every colour occurs once on each side. Holding these pairs out (a tenth of the pairs
# of body and wing, and of body and crown) leaves all colours equally frequent.
HELD_OUT: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("body", "wing"): (
        ("red", "blue"),
        ("orange", "purple"),
        ("yellow", "black"),
        ("green", "orange"),
        ("blue", "yellow"),
        ("purple", "green"),
        ("brown", "white"),
        ("black", "red"),
        ("white", "grey"),
        ("grey", "brown"),
    ),
    ("body", "crown"): (
        ("red", "white"),
        ("orange", "green"),
        ("yellow", "blue"),
        ("green", "red"),
        ("blue", "orange"),
        ("purple", "yellow"),
        ("brown", "purple"),
        ("black", "grey"),
        ("white", "black"),
        ("grey", "brown"),
    ),
}

# Independent of other streams from the same seed.
_BIRD_STREAM = 20230114
_CAPTION_STREAM = 20230115

_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_PLACES = {
    "sky": ("flying in the sky", "flying through the sky", "flying across the sky"),
    "branch": ("sitting on a branch", "perched on a branch", "perching on a branch"),
    "water": (
        "swimming on the water",
        "floating on the water",
        "swimming in the water",
    ),
    "plain": (
        "standing on a plain background",
        "standing against a plain background",
        "standing before a plain background",
    ),
}
_FULL = frozenset(
    ("body", "wing", "crown", "belly", "beak_color", "beak_length", "beak_shape")
)
# The attributes that a caption always names, and the number of random others, from the
# full captions to the partial ones.
PLANS: tuple[tuple[frozenset[str], int], ...] = (
    (frozenset(ATTRIBUTES), 0),
    (_FULL, 1),
    (frozenset(("size", "body", "wing", "beak_color", "beak_length")), 0),
    (frozenset(("body", "belly")), 3),
    (frozenset(("body", "wing", "background")), 0),
    (frozenset(), 3),
    (frozenset(("background",)), 1),
    (frozenset(), 2),
    (frozenset(), 1),
    (frozenset(("body",)), 0),
)

_T = TypeVar("_T")


class Bird(NamedTuple):
    """The attributes of a bird, with values from `ATTRIBUTES`."""

    body: str
    wing: str
    crown: str
    belly: str
    beak_color: str
    beak_length: str
    beak_shape: str
    tail: str
    size: str
    pose: str
    background: str


def is_held_out(bird: Bird) -> bool:
    """Whether a bird has one of the `HELD_OUT` pairs of attributes."""
    return any(
        (getattr(bird, first), getattr(bird, second)) in pairs
        for (first, second), pairs in HELD_OUT.items()
    )


def bird(seed: int, held_out: bool = False) -> Bird:
    """Draw the attributes of a bird.

    Args:
        seed: int, not negative.
        held_out: bool. Whether the bird has at least one of the `HELD_OUT` pairs, or
            none of them.

    Returns:
        A `Bird`, always the same for the same arguments.
    """
    rng = np.random.default_rng((_BIRD_STREAM, seed))
    while True:
        drawn = Bird(*(_pick(values, rng) for values in ATTRIBUTES.values()))
        if is_held_out(drawn) == held_out:
            return drawn


def captions(bird: Bird, seed: int) -> list[str]:
    """Describe a bird in ten ways, all true.

    The first caption names every attribute, the second all colours and the beak, and
    the next ones fewer and fewer. The last caption names only the colour of the body,
    the one before it only one other attribute.

    Args:
        bird: `Bird`.
        seed: int, not negative. Chooses the attributes and the words.

    Returns:
        A list of ten different strings, in lower case and without a full stop.
    """
    rng = np.random.default_rng((_CAPTION_STREAM, seed))
    texts: list[str] = []
    for plan in PLANS:
        text = ""
        while not text or text in texts:
            text = describe(bird, named(plan, rng), rng)
        texts.append(text)
    return texts


def named(plan: tuple[frozenset[str], int], rng: np.random.Generator) -> frozenset[str]:
    """The attributes that a caption of one of the `PLANS` names."""
    certain, more = plan
    # Half of the captions name the body anyway.
    others = [name for name in ATTRIBUTES if name not in certain | {"body"}]
    return certain | {*_shuffled(others, rng)[:more]}


def describe(bird: Bird, names: frozenset[str], rng: np.random.Generator) -> str:
    """Name some attributes of a bird.

    Args:
        bird: `Bird`.
        names: frozenset of strings out of `ATTRIBUTES`. What is named.
        rng: `numpy.random.Generator`. Chooses the words and their order.

    Returns:
        A caption in lower case and without a full stop.
    """
    words = ["bird"]
    features = _features(bird, names, rng)
    if "body" in names:
        # "A red bird" as often as "a bird with a red body".
        if rng.integers(2):
            words.insert(0, bird.body)
        else:
            features.insert(0, _with_article(f"{bird.body} body"))
    if "size" in names:
        words.insert(0, _pick(_SIZES[bird.size], rng))
    subject = " ".join(words)
    place = _pick(_PLACES[bird.background], rng) if "background" in names else ""
    if not features:
        start = _pick(("this is ", ""), rng) if len(words) > 1 or place else ""
        return f"{start}{_with_article(subject)} {place}".rstrip()
    text = _join(features)
    if not place:
        forms: tuple[str, ...] = (
            f"{_with_article(subject)} with {text}",
            f"{_with_article(subject)} that has {text}",
            f"this {subject} has {text}",
            f"the {subject} has {text}",
            f"this is {_with_article(subject)} with {text}",
        )
    elif len(features) > 1:
        # Without the comma, the last part would seem to be in that place.
        forms = (
            f"{_with_article(subject)} with {text}, {place}",
            f"this {subject} {place} has {text}",
            f"{place}, this {subject} has {text}",
        )
    else:
        forms = (
            f"{_with_article(subject)} with {text} {place}",
            f"this {subject} {place} has {text}",
            f"the {subject} {place} has {text}",
        )
    return _pick(forms, rng)


def _features(bird: Bird, names: frozenset[str], rng: np.random.Generator) -> list[str]:
    """Phrases for the parts of a bird, with the attributes to name."""

    def part(attributes: Iterable[str], noun: str) -> list[str]:
        words = [getattr(bird, name) for name in attributes if name in names]
        return [_with_article(" ".join([*words, noun]))] if words else []

    beak = ("beak_length", "beak_shape", "beak_color")
    return _shuffled(
        [
            *_wings(bird, names, rng),
            *part(("crown",), _pick(("crown", "cap"), rng)),
            *part(("belly",), _pick(("belly", "breast"), rng)),
            *part(beak, _pick(("beak", "bill"), rng)),
            *part(("tail",), "tail"),
        ],
        rng,
    )


def _wings(bird: Bird, names: frozenset[str], rng: np.random.Generator) -> list[str]:
    words = ["wings"]
    if "wing" in names:
        words.insert(0, bird.wing)
    if "pose" in names:
        # Lowered wings are spread in flight only.
        resting = bird.pose == "lowered" and bird.background != "sky"
        words.insert(0, _pick((bird.pose, "folded" if resting else bird.pose), rng))
    return [" ".join(words)] if len(words) > 1 else []


def _with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _join(texts: list[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def _pick(values: tuple[_T, ...], rng: np.random.Generator) -> _T:
    return values[rng.integers(len(values))]


def _shuffled(values: list[_T], rng: np.random.Generator) -> list[_T]:
    rest = list(values)
    return [rest.pop(rng.integers(len(rest))) for _ in values]
