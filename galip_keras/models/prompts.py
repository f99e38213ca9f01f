"""Clean prompts and captions as OpenAI's CLIP does, before its tokenizer."""

import html
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ftfy
import numpy as np

from galip_keras.console import say

# The words of OpenAI's tokenizer. In a graph keras-hub's tokenizer splits
# elsewhere, but never joins words on different lines.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{Z}\p{L}\p{N}]+"

# The same without \p, which Python does not know.
_UNITS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")

# CLIP reads 77 tokens. Two of them mark the start and the end.
_MAX_TOKENS = 75
_MANY_CHARACTERS = 1000

# How much of the lost words a warning shows.
_CHARACTERS_SHOWN = 1000
_PROMPTS_SHOWN = 10


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


def prompts_in(inputs: Any) -> Any:
    """Take the prompts out of keras-hub's dict of inputs.

    Raises:
        ValueError: if there are others than prompts. Negative prompts are such.
    """
    if not isinstance(inputs, dict):
        return inputs
    if others := sorted(map(str, inputs.keys() - {"prompts"})):
        raise ValueError(
            f"GALIP takes `prompts` alone, not {', '.join(others)}. To lead away from "
            "something, give it to `galip_keras.sample` as `minus`"
        )
    if "prompts" not in inputs:
        raise ValueError("there are no `prompts` in the inputs")
    return inputs["prompts"]


def as_prompts(inputs: Any) -> tuple[list[str], bool]:
    """Return prompts of any kind as a list of strings.

    Args:
        inputs: a string, or a list, tuple, array, tensor or `tf.data.Dataset` of
            strings. Bytes are UTF-8.

    Returns:
        A tuple of the list, and whether `inputs` was a single string.

    Raises:
        ValueError: if there are no prompts, or some are no strings.
    """
    if hasattr(inputs, "as_numpy_iterator"):
        batches = map(np.ravel, inputs.as_numpy_iterator())
        inputs = [prompt for batch in batches for prompt in batch]
    elif not isinstance(inputs, (str, bytes, list, tuple)):
        inputs = np.asarray(inputs).tolist()
    is_scalar = not isinstance(inputs, (list, tuple))
    prompts = [_as_string(x) for x in ([inputs] if is_scalar else inputs)]
    if not prompts:
        raise ValueError("there are no prompts")
    return prompts, is_scalar


def _as_string(prompt):
    if not isinstance(prompt, (str, bytes)):
        # A tensor of one string, in a list.
        prompt = np.asarray(prompt).tolist()
    if isinstance(prompt, bytes):
        prompt = prompt.decode("utf-8", "replace")
    if not isinstance(prompt, str):
        raise ValueError(f"prompts are strings, not {prompt!r}")
    return prompt


def _is_symbolic(texts):
    # Whoever has a tensor has imported TensorFlow.
    tf = sys.modules.get("tensorflow")
    return tf is not None and tf.is_tensor(texts) and not tf.executing_eagerly()


def _clean_in_graph(texts):
    import tensorflow as tf

    texts = tf.strings.regex_replace(texts, r"[\s\p{Z}]+", "\n")
    texts = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.regex_replace(texts, WORDS, "\\0\n")


def is_too_long(text: str) -> bool:
    """Whether CLIP surely cuts a text off, whatever its vocabulary.

    A word, a digit and a run of symbols are at least one token each.
    """
    if len(text) <= _MAX_TOKENS:
        return False
    units = _UNITS.findall(clean(text))
    return len(units) > _MAX_TOKENS or len(text) > _MANY_CHARACTERS


def warn_of_lost_words(
    prompts: Sequence[str],
    count_tokens: Callable[[list[str]], Iterable[int]],
    sequence_length: int,
) -> bool:
    """Tell the user which words of prompts are beyond what CLIP reads.

    Args:
        prompts: sequence of strings, cleaned.
        count_tokens: callable. The number of tokens of each of some words.
        sequence_length: int. The tokens of a prompt that are read, start and end
            included.

    Returns:
        Whether any words are lost.
    """
    lost = []
    for prompt in prompts:
        # A token stands for at least one byte.
        if len(prompt.encode(errors="replace")) > sequence_length - 2:
            words = prompt.split()
            ends = itertools.accumulate(count_tokens(words), initial=2)
            cut = [w for w, end in zip(words, list(ends)[1:]) if end > sequence_length]
            lost += [" ".join(cut)] * bool(cut)
    if lost:
        count = "one prompt is" if len(lost) == 1 else f"{len(lost)} prompts are"
        shown = [textwrap.shorten(x, _CHARACTERS_SHOWN) for x in lost[:_PROMPTS_SHOWN]]
        shown += ["..."] * (len(lost) > _PROMPTS_SHOWN)
        say(
            f"Warning: {count} longer than the {sequence_length} tokens that CLIP "
            f"reads. These words have no effect: {'; '.join(shown)}"
        )
    return bool(lost)


def unknown_words(
    prompts: Sequence[str], count_tokens: Callable[[str], int]
) -> list[str]:
    """The words of prompts that a small vocabulary does not know.

    It has one token for each word of its training captions. The tokenizer splits all
    other words into several tokens.

    Args:
        prompts: sequence of strings.
        count_tokens: callable. The number of tokens of a word.

    Returns:
        A list of strings, each word once, in lower case.
    """
    words = re.findall(r"[^\W\d_]+", " ".join(prompts).lower())
    return [word for word in dict.fromkeys(words) if count_tokens(word) > 1]
