"""keras-hub's tokenizer of CLIP, made to work where TensorFlow is not installed.

It has two halves: TensorFlow's ops for a `tf.function`, and Hugging Face's `tokenizers`
for everything else. keras-hub before 0.32 has, or needs, the first half only.
"""

import functools

from keras_hub.tokenizers import CLIPTokenizer

_METHOD = "_set_vocabulary_and_merges_tokenizers"


def _repair() -> None:
    """Let the second half do without the first.

    keras-hub 0.32 builds it from a vocabulary that only the first half has stored.
    """
    build = getattr(CLIPTokenizer, _METHOD, None)
    if build is None:
        return

    @functools.wraps(build)
    def store_and_build(self, vocabulary, merges):
        self.vocabulary, self.merges = vocabulary.copy(), merges
        build(self, vocabulary, merges)

    setattr(CLIPTokenizer, _METHOD, store_and_build)


_repair()
