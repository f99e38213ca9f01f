"""From prompts to token ids."""

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
from keras_hub.models import TextToImagePreprocessor

from galip_keras.backend import Tensor
from galip_keras.models.backbone import GALIPBackbone
from galip_keras.models.prompts import clean, unknown_words, warn_of_lost_words
from galip_keras.models.tokenizer import CLIPTokenizer


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIPTextToImagePreprocessor(TextToImagePreprocessor):
    """Tokenizes prompts as OpenAI's CLIP does.

    Args:
        tokenizer: a `keras_hub.tokenizers.CLIPTokenizer`.
        sequence_length: int. Tokens of a prompt, start and end included. Longer prompts
            are cut, shorter ones are padded.
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

    Reference:
        [Learning Transferable Visual Models From Natural Language Supervision](
        https://arxiv.org/abs/2103.00020)
    """

    backbone_cls = GALIPBackbone
    tokenizer_cls = CLIPTokenizer

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        sequence_length: int = 77,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)

        # === Layers ===
        # `clean` lowers the case; keras-hub would need TensorFlow for that.
        self.clip_preprocessor = keras_hub.models.CLIPPreprocessor(
            tokenizer, sequence_length=sequence_length, to_lower=False
        )
        self.tokenizer = tokenizer

        # === Config ===
        self.sequence_length = sequence_length

        # Whether the next prompt that is too long is worth a warning.
        self.warns = True

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        x = {"prompts": clean(x), "images": None}
        x = self.clip_preprocessor(x)["token_ids"]
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def generate_preprocess(self, x: Any) -> Tensor:
        self.warn_of_lost_words(x)
        return self(x)

    def warn_of_lost_words(self, prompts: Any) -> None:
        """Warn about words beyond `sequence_length`, unless that was done before.

        Args:
            prompts: a string, a list of strings or a string tensor.
        """
        texts = clean(prompts) if self.warns else None
        # In a `tf.function` they are not known.
        if not isinstance(texts, (str, list)):
            return
        texts = [texts] if isinstance(texts, str) else texts
        self.warns = not warn_of_lost_words(
            texts,
            lambda words: map(len, self.tokenizer(words)),
            self.sequence_length,
        )

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """The words of prompts that the training captions never used.

        Args:
            prompts: list of strings.

        Returns:
            A list of strings, each word once, in lower case.
        """
        return unknown_words(prompts, lambda word: len(self.tokenizer(word)))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "tokenizer": keras.layers.serialize(self.tokenizer),
                "sequence_length": self.sequence_length,
            }
        )
        return config
