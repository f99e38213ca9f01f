"""Weight files without the frozen CLIP."""

from __future__ import annotations

import os
from typing import Any

import keras


class TrainedWeights:
    """For a `keras.Model` with a frozen `clip`, which its weight files leave out."""

    clip: keras.layers.Layer

    def save_weights(
        self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: Any
    ) -> None:
        """As in Keras, with both optimizers and without the frozen CLIP."""
        keras.saving.save_weights(
            self, filepath, overwrite, objects_to_skip=self._frozen_layers(), **kwargs
        )

    def load_weights(
        self,
        filepath: str | os.PathLike[str],
        skip_mismatch: bool = False,
        **kwargs: Any,
    ) -> None:
        """As in Keras, from a file that `save_weights` wrote."""
        keras.saving.load_weights(
            self,
            filepath,
            skip_mismatch,
            objects_to_skip=self._frozen_layers(),
            **kwargs,
        )

    def _frozen_layers(self):
        return list(self.clip._flatten_layers())
