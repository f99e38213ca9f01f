"""CLIPs that score images against their captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from galip_keras.convert.clip import load_any_clip
from galip_keras.metrics import features
from galip_keras.metrics.config import OWN_CLIP
from galip_keras.metrics.features import Extractor
from galip_keras.metrics.image_sets import BATCH_SIZE
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor
from galip_keras.models.text_encoder import embed_texts, text_encoder

if TYPE_CHECKING:
    from galip_keras.models.text_to_image import GALIPTextToImage


class Scorer:
    """A CLIP that scores images against captions.

    Args:
        name: string. What a report calls it.
        extractor: a `galip_keras.metrics.features.Extractor` of its image embeddings.
        clip: a `galip_keras.FrozenCLIP`.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        is_own: bool. Whether the evaluated model was trained with it.
    """

    def __init__(
        self,
        name: str,
        extractor: Extractor,
        clip: FrozenCLIP,
        preprocessor: keras.layers.Layer,
        is_own: bool = False,
    ) -> None:
        self.name = name
        self.extractor = extractor
        self.is_own = is_own
        self._encoder = text_encoder(clip)
        self.preprocessor = preprocessor

    @classmethod
    def of_model(cls, model: GALIPTextToImage) -> Scorer:
        """The CLIP that a model was trained with."""
        clip = model.backbone.clip
        return cls(
            OWN_CLIP,
            features.of_model(clip),
            clip,
            model.preprocessor,
            is_own=True,
        )

    @classmethod
    def of_preset(cls, preset: str) -> Scorer:
        """The CLIP of a preset.

        Args:
            preset: string. As for `galip_keras.convert.clip.load_any_clip`.

        Raises:
            OSError: If it cannot be fetched.
            ValueError: If it cannot be loaded.
        """
        backbone, tokenizer = load_any_clip(preset, argument="scorer")
        clip = FrozenCLIP(backbone, feature_layers=(0,), pixel_scaling="standard")
        preprocessor = GALIPTextToImagePreprocessor(tokenizer)
        return cls(preset, features.of_preset(clip, preset), clip, preprocessor)

    def embed(self, captions: Sequence[str]) -> np.ndarray:
        """Text embeddings `(len(captions), embedding_dim)`, float32."""
        return embed_texts(self._encoder, self.preprocessor, captions, BATCH_SIZE)
