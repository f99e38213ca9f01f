"""Cartoon birds: attributes, true captions, and images that show the attributes."""

import re
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from galip_keras.datasets.toybirds.birds import (
    ATTRIBUTES,
    COLORS,
    HELD_OUT,
    Bird,
    bird,
    captions,
    is_held_out,
)
from galip_keras.datasets.toybirds.drawing import draw

# Drawing has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

COUNT = 2000
COLOR = rf"\b({'|'.join(COLORS)})"
# How captions name each attribute, written independently of their generator.
NAMED = {
    "body": rf"{COLOR} (?:bird|body)\b",
    "wing": rf"{COLOR} wings\b",
    "crown": rf"{COLOR} (?:crown|cap)\b",
    "belly": rf"{COLOR} (?:belly|breast)\b",
    "beak_color": rf"{COLOR} (?:beak|bill)\b",
    "beak_length": rf"(short|long) (?:pointed |hooked )?(?:{COLOR} )?(?:beak|bill)\b",
    "beak_shape": rf"(pointed|hooked) (?:{COLOR} )?(?:beak|bill)\b",
    "tail": r"(short|long|forked) tail\b",
    "size": r"\b(small|little|large|big)\b",
    "pose": rf"(raised|lowered|folded) (?:{COLOR} )?wings\b",
    "background": r"\b(sky|branch|water|plain)\b",
}
# All other words.
FILLER = (
    "a|across|against|an|and|background|beak|before|belly|bill|bird|body|breast|cap|crown|"
    "floating|flying|has|in|is|on|perched|perching|sitting|standing|swimming|tail|"
    "that|the|this|through|wings|with"
)
SYNONYMS = {"little": "small", "big": "large", "folded": "lowered"}


def named(caption):
    """The attributes that a caption names, with their values."""
    found = {}
    for name, pattern in NAMED.items():
        matches = list(re.finditer(pattern, caption))
        assert len(matches) < 2, caption
        for match in matches:
            value = next(filter(None, match.groups()))
            found[name] = SYNONYMS.get(value, value)
    return found


@pytest.fixture(scope="module")
def birds():
    return [bird(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def texts(birds):
    return [captions(each, seed) for seed, each in enumerate(birds)]


def pixels(each, seed=0, size=64):
    return np.asarray(draw(each, seed, size), int)


def test_fields_are_the_attributes():
    assert Bird._fields == tuple(ATTRIBUTES)


def test_a_seed_always_gives_the_same_bird():
    # Prepared datasets contain these: a change needs a new version of the dataset.
    assert bird(0) == Bird(
        body="brown",
        wing="yellow",
        crown="yellow",
        belly="orange",
        beak_color="orange",
        beak_length="short",
        beak_shape="pointed",
        tail="forked",
        size="small",
        pose="raised",
        background="branch",
    )


def test_same_seed_same_everything():
    each = bird(7)
    assert each == bird(7)
    assert captions(each, 7) == captions(each, 7)
    assert draw(each, 7).tobytes() == draw(each, 7).tobytes()


def test_the_seed_varies_image_and_captions():
    each = bird(7)
    assert np.abs(pixels(each, 1) - pixels(each, 2)).mean() > 5
    assert captions(each, 1) != captions(each, 2)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_values_are_equally_frequent(birds, name):
    count = Counter(getattr(each, name) for each in birds)
    assert count.keys() == set(ATTRIBUTES[name])
    expected = COUNT / len(count)
    assert all(abs(n - expected) < 4 * expected**0.5 for n in count.values())


@pytest.mark.parametrize(
    "pair", [*HELD_OUT, ("body", "belly"), ("wing", "belly"), ("crown", "size")]
)
def test_attributes_are_independent(birds, pair):
    first, second = pair
    count = Counter((getattr(each, first), getattr(each, second)) for each in birds)
    allowed = set(product(ATTRIBUTES[first], ATTRIBUTES[second]))
    allowed -= set(HELD_OUT.get(pair, ()))
    expected = COUNT / len(allowed)
    chi_square = sum((count[each] - expected) ** 2 / expected for each in allowed)
    # Four standard deviations above what chance gives.
    assert chi_square < len(allowed) + 4 * (2 * len(allowed)) ** 0.5


def test_few_pairs_are_held_out():
    for (first, second), pairs in HELD_OUT.items():
        every = set(product(ATTRIBUTES[first], ATTRIBUTES[second]))
        assert set(pairs) < every
        assert 0.05 <= len(set(pairs)) / len(every) <= 0.1


def test_held_out_pairs_occur_only_on_request(birds):
    assert not any(map(is_held_out, birds))
    others = [bird(seed, held_out=True) for seed in range(COUNT)]
    assert all(map(is_held_out, others))
    for (first, second), pairs in HELD_OUT.items():
        seen = {(getattr(each, first), getattr(each, second)) for each in others}
        assert set(pairs) <= seen
        seen = {(getattr(each, first), getattr(each, second)) for each in birds}
        assert seen.isdisjoint(pairs)


def test_ten_different_captions(texts):
    for ten in texts:
        assert len(ten) == len(set(ten)) == 10


def test_captions_are_true(birds, texts):
    for each, ten in zip(birds, texts):
        for caption in ten:
            assert named(caption).items() <= each._asdict().items(), caption
            if "folded" in caption:
                assert each.background != "sky"


def test_captions_go_from_full_to_partial(birds, texts):
    for each, ten in zip(birds, texts):
        assert named(ten[0]) == each._asdict()
        assert {"body", "wing", "crown", "belly", "beak_color"} <= named(ten[1]).keys()
        assert len(named(ten[-2])) == 1
        assert named(ten[-1]) == {"body": each.body}


def test_every_value_is_named(texts):
    values = {item for ten in texts for text in ten for item in named(text).items()}
    assert values == {
        (name, value) for name in ATTRIBUTES for value in ATTRIBUTES[name]
    }


def test_captions_are_clean_english(texts):
    for caption in {text for ten in texts for text in ten}:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", caption), caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption), caption
        # Every colour describes a part.
        assert not re.search(rf"{COLOR}\b(?! [a-z])", caption), caption
        assert len(caption.split()) < 40


def test_captions_contain_only_known_words(texts):
    words = {word for ten in texts for word in re.findall("[a-z]+", " ".join(ten))}
    values = {value for values in ATTRIBUTES.values() for value in values}
    for word in words - values - SYNONYMS.keys():
        assert re.fullmatch(FILLER, word), word


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_any_size(size):
    image = draw(bird(3), 3, size)
    assert (image.mode, image.size) == ("RGB", (size, size))


@pytest.mark.parametrize("background", ATTRIBUTES["background"])
def test_every_size_shows_the_same_drawing(background):
    for seed in range(4):
        each = bird(seed)._replace(background=background)
        large = np.asarray(draw(each, seed, 128).reduce(2), int)
        assert np.abs(large - pixels(each, seed)).mean() < 2


@pytest.mark.parametrize("background", ATTRIBUTES["background"])
@pytest.mark.parametrize("pose", ATTRIBUTES["pose"])
def test_every_attribute_shows_at_64_pixels(pose, background):
    for seed in range(2):
        # Small birds are harder to see, and the margin never moves them.
        each = bird(seed)._replace(size="small", pose=pose, background=background)
        for name, values in ATTRIBUTES.items():
            images = {v: pixels(each._replace(**{name: v}), seed) for v in values}
            for one, other in combinations(values, 2):
                changed = np.abs(images[one] - images[other]).sum(axis=-1) > 60
                assert changed.sum() >= 20, (name, one, other)


def test_birds_stay_off_the_border():
    """Wings and beaks of any length end inside the image."""
    for seed in range(20):
        each = Bird(
            *["black"] * 5, "long", "pointed", "long", "large", "raised", "plain"
        )
        image = pixels(each, seed)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert border.mean(axis=-1).min() > 100
