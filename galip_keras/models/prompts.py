"""Clean prompts and captions as OpenAI's CLIP does, before its tokenizer."""

import html
from typing import Any

import ftfy
import numpy as np

# The words of OpenAI's tokenizer. In a graph keras-hub's tokenizer splits
# elsewhere, but never joins words on different lines.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{Z}\p{L}\p{N}]+"


def clean(texts: Any) -> Any:
    """Fix encodings, resolve HTML entities, lower case and join white space.

    Args:
        texts: a string, a list of strings, or an array or tensor of strings. In a
            `tf.function` encodings and entities stay as they are, since TensorFlow has
            no ops for them.

    Returns:
        A string or a list of strings; in a `tf.function` a tensor.
    """
    if isinstance(texts, str):
        text = html.unescape(html.unescape(ftfy.fix_text(texts)))
        return " ".join(text.split()).lower()
    if isinstance(texts, bytes):
        return clean(texts.decode("utf-8", "replace"))
    if isinstance(texts, (list, tuple)):
        return [clean(text) for text in texts]
    if _is_symbolic(texts):
        return _clean_in_graph(texts)
    # An array, or an eager tensor.
    return clean(np.asarray(texts).tolist())


def _is_symbolic(texts):
    import tensorflow as tf

    return tf.is_tensor(texts) and not tf.executing_eagerly()


def _clean_in_graph(texts):
    import tensorflow as tf

    texts = tf.strings.regex_replace(texts, r"[\s\p{Z}]+", "\n")
    texts = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.regex_replace(texts, _WORDS, "\\0\n")
