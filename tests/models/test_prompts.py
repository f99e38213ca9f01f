"""Token ids, against the tokenizer of open_clip, which is a copy of OpenAI's."""

import html
import importlib.util
import json
import pathlib

import ftfy
import numpy as np
import pytest

from galip_keras import GALIPTextToImagePreprocessor
from galip_keras.convert.clip import read_vocabulary
from galip_keras.models import prompts

# What is taken for TensorFlow here is no part of a backend.
pytestmark = pytest.mark.backend("tensorflow")

# Accents, scripts, emoji, entities, broken encodings, odd spaces, 200 words, nothing.
HARD = json.loads(
    pathlib.Path(__file__).parents[1].joinpath("hard_sentences.json").read_text("utf-8")
)


def sentences(count=500):
    """The hard ones, and then two of them at a time, with and without a space."""
    found = list(HARD)
    for i in range(count - len(HARD)):
        pair = HARD[(7 * i) % len(HARD)], HARD[(11 * i + 3) % len(HARD)]
        found.append((" " * (i % 2)).join(pair))
    return found


@pytest.fixture(scope="module")
def open_clip():
    """Folder and tokenizer of open_clip, whose other modules want torchvision."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("open-clip-torch is not installed")
    folder = pathlib.Path(spec.origin).parent
    spec = importlib.util.spec_from_file_location("tokenizer", folder / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return folder, module


@pytest.fixture(scope="module")
def preprocessor(open_clip):
    vocabulary = open_clip[0] / "bpe_simple_vocab_16e6.txt.gz"
    return GALIPTextToImagePreprocessor(read_vocabulary(vocabulary))


@pytest.fixture(scope="module")
def expected(open_clip):
    return open_clip[1].SimpleTokenizer()(sentences()).numpy()


def test_token_ids_are_openai_s(preprocessor, expected):
    assert expected.shape == (500, 77)
    np.testing.assert_array_equal(np.asarray(preprocessor(sentences())), expected)


def test_token_ids_in_a_graph_are_openai_s(preprocessor, expected):
    import tensorflow as tf

    # Mended before: TensorFlow has no ops for encodings and entities.
    mended = [html.unescape(html.unescape(ftfy.fix_text(x))) for x in sentences()]
    # White space that only Unicode knows stands for itself in TensorFlow's.
    mended = [" ".join(x.split()) for x in mended]
    tokens = tf.function(preprocessor)(tf.constant(mended))
    np.testing.assert_array_equal(tokens, expected)


def test_one_sentence_many_and_tensors_are_the_same(preprocessor):
    import tensorflow as tf

    texts = ["A  Café &amp; 3 owls", "an owl's nest"]
    tokens = np.asarray(preprocessor(texts))
    for same in (np.array(texts), tf.constant(texts)):
        np.testing.assert_array_equal(np.asarray(preprocessor(same)), tokens)
    for one in (texts[0], tf.constant(texts[0])):
        np.testing.assert_array_equal(np.asarray(preprocessor(one)), tokens[0])


def test_sentences_are_cleaned():
    assert prompts.clean("  A&amp;B\n caf&eacute; ") == "a&b café"
    assert prompts.clean([b"\xff x", "Y"]) == ["\ufffd x", "y"]
