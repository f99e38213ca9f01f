"""Captions made wrong: false, grammatical, and the same for the same numbers."""

import numpy as np
import pytest

from galip_keras.datasets.mismatches import contradict, mismatched
from galip_keras.datasets.toybirds.birds import ATTRIBUTES, bird, captions


def made_wrong(caption, count=40):
    return {contradict(caption, np.random.default_rng(i)) for i in range(count)}


def test_it_differs_and_keeps_all_other_words():
    for seed in range(20):
        for caption in captions(bird(seed), seed):
            wrong = contradict(caption, np.random.default_rng(seed))
            if wrong is not None:
                pairs = zip(caption.split(), wrong.split(), strict=True)
                changed = [(a, b) for a, b in pairs if a != b and a not in ("a", "an")]
                assert 1 <= len(changed) <= 3


def test_every_caption_that_names_a_color_can_be_made_wrong():
    texts = [captions(bird(seed), seed)[0] for seed in range(20)]
    assert None not in {contradict(text, np.random.default_rng(0)) for text in texts}


def test_colors_are_exchanged_or_replaced():
    wrong = made_wrong("a red bird with blue wings")
    assert "a blue bird with red wings" in wrong
    assert len(wrong) > 10
    assert "a red bird with blue wings" not in wrong


def test_the_article_fits():
    assert made_wrong("an orange bird") == {
        f"a {color} bird" for color in ATTRIBUTES["body"] if color != "orange"
    }
    assert "an orange bird" in made_wrong("a red bird")


@pytest.mark.parametrize(
    "caption", ["a black and white bird", "a Black, white or grey bird"]
)
def test_the_order_of_a_list_of_colors_says_nothing(caption):
    words = sorted(caption.lower().replace(",", "").split())
    for wrong in made_wrong(caption):
        assert sorted(wrong.lower().replace(",", "").split()) != words


def test_synonyms_are_no_mistake():
    assert made_wrong("a small bird") == {"a large bird", "a big bird"}


def test_nothing_to_change():
    assert contradict("a bird flying in the sky", np.random.default_rng(0)) is None


def test_the_next_caption_where_it_is_not_made_wrong():
    texts = ["a red bird", "flying", "a blue bird"]
    assert mismatched(texts, 0.0, 0, [0, 1, 2]) == ["flying", "a blue bird", texts[0]]
    hard = mismatched(texts, 1.0, 0, [0, 1, 2])
    assert hard[1] == "a blue bird"
    assert all(text.endswith(" bird") and text not in texts for text in hard[::2])


def test_share_and_numbers():
    texts = ["a red bird"] * 500 + ["a blue bird"] * 500
    numbers = list(range(1000))
    some = mismatched(texts, 0.5, 3, numbers)
    assert some == mismatched(texts, 0.5, 3, numbers)
    assert some != mismatched(texts, 0.5, 4, numbers)
    easy = sum(text in ("a red bird", "a blue bird") for text in some[:500])
    # A wrong "a red bird" is "a blue bird" once in nine.
    assert 230 <= easy <= 330
