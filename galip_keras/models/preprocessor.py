"""Prompts to token ids."""

import re

import keras
import keras_hub
from keras_hub.models import TextToImagePreprocessor

from galip_keras.models import prompts
from galip_keras.models.backbone import GALIPBackbone


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIPTextToImagePreprocessor(TextToImagePreprocessor):
    """Prompts to token ids, those of OpenAI's CLIP.

    Args:
        tokenizer: a `keras_hub.tokenizers.CLIPTokenizer`.
        sequence_length: int. Tokens of a prompt, start and end included; longer prompts
            are cut, shorter ones padded.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: a string, a list of strings or a string tensor.

    Returns:
        An int32 tensor `(batch_size, sequence_length)`.

    Example:

    ```python
    model = galip_keras.GALIPTextToImage.from_preset("toybirds")
    model.preprocessor(["a red bird", "a blue bird"])  # (2, 77)
    ```
    """

    backbone_cls = GALIPBackbone
    tokenizer_cls = keras_hub.tokenizers.CLIPTokenizer

    def __init__(self, tokenizer, sequence_length=77, **kwargs):
        super().__init__(**kwargs)
        self.clip_preprocessor = keras_hub.models.CLIPPreprocessor(
            tokenizer, sequence_length=sequence_length
        )
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length

    def build(self, input_shape):
        self.built = True

    def call(self, x, y=None, sample_weight=None):
        x = {"prompts": prompts.clean(x), "images": None}
        x = self.clip_preprocessor(x)["token_ids"]
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def generate_preprocess(self, x):
        return self(x)

    def unknown_words(self, sentences):
        """The words of some prompts that the tokenizer has to take to pieces.

        A small vocabulary is made of the captions of the training data, with a token
        for each of their words: a word of several tokens was not among them.

        Args:
            sentences: list of strings.

        Returns:
            A list of strings, each word once, in lower case.
        """
        words = re.findall(r"[^\W\d_]+", " ".join(sentences).lower())
        words = list(dict.fromkeys(words))
        return [word for word in words if len(self.tokenizer(word)) > 1]

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "tokenizer": keras.layers.serialize(self.tokenizer),
                "sequence_length": self.sequence_length,
            }
        )
        return config
