"""Token ids against the tokenizer of open_clip, which is a copy of OpenAI's."""

import html
import importlib.util
import json
import pathlib

import extras
import ftfy
import numpy as np
import pytest

from galip_keras import GALIPTextToImagePreprocessor
from galip_keras.convert.clip import read_vocabulary
from galip_keras.models.prompts import clean

# Tokenization uses TensorFlow on every backend.
pytestmark = pytest.mark.backend("tensorflow")

# Accents, scripts, emoji, entities, broken encodings, odd spaces, 200 words, no words.
HARD = json.loads(
    pathlib.Path(__file__).parents[1].joinpath("hard_sentences.json").read_text("utf-8")
)


def texts(count=500):
    """The hard texts, and then pairs of them, with and without a space."""
    found = list(HARD)
    for i in range(count - len(HARD)):
        pair = HARD[(7 * i) % len(HARD)], HARD[(11 * i + 3) % len(HARD)]
        found.append((" " * (i % 2)).join(pair))
    return found


@pytest.fixture(scope="module")
def open_clip():
    """Folder and tokenizer of open_clip, whose other modules need torchvision."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        extras.without_torchvision("open-clip-torch")
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
    return open_clip[1].SimpleTokenizer()(texts()).numpy()


@pytest.mark.extra("torch", "torch")
def test_token_ids_are_openai_s(preprocessor, expected):
    assert expected.shape == (500, 77)
    np.testing.assert_array_equal(np.asarray(preprocessor(texts())), expected)


@pytest.mark.extra("torch", "torch")
def test_token_ids_in_a_graph_are_openai_s(preprocessor, expected):
    import tensorflow as tf

    # Fixed before, since TensorFlow has no ops for encodings and entities.
    mended = [html.unescape(html.unescape(ftfy.fix_text(x))) for x in texts()]
    # TensorFlow keeps white space that only Unicode knows.
    mended = [" ".join(x.split()) for x in mended]
    tokens = tf.function(preprocessor)(tf.constant(mended))
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.extra("torch", "torch")
def test_strings_lists_and_tensors_give_the_same_ids(preprocessor):
    import tensorflow as tf

    prompts = ["A  Café &amp; 3 owls", "an owl's nest"]
    tokens = np.asarray(preprocessor(prompts))
    for same in (np.array(prompts), tf.constant(prompts)):
        np.testing.assert_array_equal(np.asarray(preprocessor(same)), tokens)
    for one in (prompts[0], tf.constant(prompts[0])):
        np.testing.assert_array_equal(np.asarray(preprocessor(one)), tokens[0])


def test_texts_are_cleaned():
    assert clean("  A&amp;B\n caf&eacute; ") == "a&b café"
    assert clean([b"\xff x", "Y"]) == ["\ufffd x", "y"]
