"""GALIP as a keras-hub task: from prompts to images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras_hub.models import TextToImage
from numpy.typing import ArrayLike

from galip_keras import backend
from galip_keras.backend import Tensor
from galip_keras.models.architectures import (
    ARCHITECTURES,
    build_generator,
    preset_folder,
)
from galip_keras.models.average import copy_weights
from galip_keras.models.backbone import GALIPBackbone
from galip_keras.models.inputs import (
    checked_embeddings,
    checked_noise,
    checked_token_ids,
)
from galip_keras.models.noise import expand_seeds, noise
from galip_keras.models.precision import PRECISIONS, forget_mixed_precision
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor
from galip_keras.models.prompts import as_prompts, prompts_in
from galip_keras.models.text_encoder import embed_token_ids, text_encoder


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIPTextToImage(TextToImage):
    """Makes images from prompts in one forward pass.

    Args:
        backbone: a `GALIPBackbone`.
        preprocessor: a `GALIPTextToImagePreprocessor`. Without one, prompts are token
            ids.
        **kwargs: other keyword arguments of `keras_hub.models.TextToImage`.

    Example:

    ```python
    model = galip_keras.GALIPTextToImage.from_preset("toybirds")
    model.generate("a red bird", seed=0)  # (64, 64, 3)
    model.generate(["a red bird", "a blue bird"], truncation=0.7)  # (2, 64, 64, 3)
    model.save_to_preset("my_galip")
    ```

    Reference:
        [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
        https://arxiv.org/abs/2301.12959)
    """

    backbone_cls = GALIPBackbone
    preprocessor_cls = GALIPTextToImagePreprocessor

    def __init__(
        self,
        backbone: GALIPBackbone,
        preprocessor: GALIPTextToImagePreprocessor | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor: Any = preprocessor

        # === Functional Model ===
        super().__init__(inputs=backbone.input, outputs=backbone.output, **kwargs)
        self.jit_compile = backend.should_jit(backbone.generator)
        # Made on first use.
        self._embed: Any = None

    jit_compile = backend.jit_compile
    quantize = GALIPBackbone.quantize
    support_negative_prompts = False

    @classmethod
    def from_preset(
        cls, preset: str, load_weights: bool = True, **kwargs: Any
    ) -> GALIPTextToImage:
        """As in keras-hub, for the names in `BUNDLED` and `ARCHITECTURES` too."""
        if preset in ARCHITECTURES:
            return build(preset, **kwargs)
        return super().from_preset(preset_folder(preset), load_weights, **kwargs)

    def save_to_preset(self, preset_dir: str, *args: Any, **kwargs: Any) -> None:
        """As in keras-hub. The precision of the computation is not saved.

        Weights in half precision are saved as they were rounded.
        """
        super().save_to_preset(preset_dir, *args, **kwargs)
        forget_mixed_precision(preset_dir)

    @property
    def precision(self) -> str:
        """What images are computed in, such as `"float32"`."""
        return self.backbone.generator.compute_dtype

    def in_precision(self, precision: str) -> GALIPTextToImage:
        """Copy the model with weights and computation in another precision.

        Args:
            precision: string. `"float32"`, `"bfloat16"` or `"float16"`.

        Raises:
            ValueError: if `precision` is none of these.
        """
        if precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {', '.join(PRECISIONS)}. "
                f"Received: {precision!r}"
            )
        config = dict(self.backbone.get_config(), dtype=precision)
        backbone = GALIPBackbone.from_config(config)
        copy_weights(zip(backbone.variables, self.backbone.variables))
        return GALIPTextToImage(backbone, self.preprocessor)

    @property
    def latent_dim(self) -> int:
        """Size of the noise of an image."""
        return self.backbone.generator.latent_dim

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of what goes in and comes out, as in the manifest of an export."""
        generator = self.backbone.generator
        clip = generator.clip
        return {
            "image_size": generator.image_size,
            "latent_dim": generator.latent_dim,
            "embedding_dim": clip.embedding_dim,
            "sequence_length": (self.preprocessor or clip).sequence_length,
            "vocabulary_size": clip.vocabulary_size,
        }

    @property
    def takes_prompts(self) -> bool:
        """Whether there is a tokenizer."""
        return self.preprocessor is not None

    def random_seed(self) -> int:
        """Draw a seed. It follows `keras.utils.set_random_seed`."""
        return int(keras.random.randint((), 0, 2**31 - 1))

    def embed(self, inputs: Any) -> np.ndarray:
        """Embed prompts by CLIP's text encoder.

        Args:
            inputs: a list or tensor of strings, or token ids without a preprocessor.

        Returns:
            A float32 array `(batch_size, embedding_dim)`, not normalized.
        """
        if self.preprocessor is not None:
            inputs = self.preprocessor.generate_preprocess(as_prompts(inputs)[0])
        return self._embed_token_ids(checked_token_ids(inputs, self.sizes))

    def decode(self, noise: ArrayLike, text_embeddings: ArrayLike) -> np.ndarray:
        """Make images from noise and text embeddings.

        Args:
            noise: float array `(batch_size, latent_dim)`, for instance from
                `galip_keras.noise`.
            text_embeddings: float array `(batch_size, embedding_dim)`, or one embedding
                for each part of the generator, as `galip_keras.MateG` takes them.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`.

        Raises:
            ValueError: if a shape or a dtype is another one, or a number is not finite.
        """
        latents = checked_noise(noise, self.sizes)
        texts = checked_embeddings(
            text_embeddings,
            self.sizes,
            len(latents),
            self.backbone.generator.num_conditions,
        )
        return self._decode(latents, texts)

    def _decode(self, latents, texts):
        tensors = map(ops.convert_to_tensor, (latents, texts))
        images = self.make_generate_function()(*tensors)
        return self._normalize_generate_outputs([images], False)

    def generate_step(self, latents: Tensor, text_embeddings: Tensor) -> Tensor:
        """Make float images from noise and text embeddings."""
        with backend.compiled(self.jit_compile):
            return self.backbone.generator(latents, text_embeddings)

    def generate(
        self,
        inputs: Any,
        seed: int | Sequence[int] | None = None,
        truncation: float = 1.0,
    ) -> np.ndarray:
        """Make images from prompts.

        Args:
            inputs: a string, or a list, tuple, array, tensor or `tf.data.Dataset` of
                strings, or a dict with these as `"prompts"`. One prompt per image.
            seed: int, or a sequence of ints, one per image. With a single seed, image i
                uses `seed + i`. The same prompt and seed give the same image, whatever
                else is in the batch. By default a seed from Keras' random
                numbers, which follow `keras.utils.set_random_seed`.
            truncation: float, at least 0. Factor of the noise: less than 1 trades
                variety for typical images.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`, without the first
            axis for a single string.

        Raises:
            ValueError: if a seed or the truncation is negative, or seeds are missing,
                or something other than prompts is given.
        """
        token_ids, is_scalar = prompts_in(inputs), False
        if self.preprocessor is not None:
            prompts, is_scalar = as_prompts(token_ids)
            token_ids = self.preprocessor.generate_preprocess(prompts)
        if seed is None:
            seed = self.random_seed()
        seeds = expand_seeds(seed, len(token_ids))
        latents = noise(seeds, self.latent_dim, truncation)
        images = self.generate_from_token_ids(token_ids, latents)
        return images[0] if is_scalar else images

    def generate_from_token_ids(
        self, token_ids: ArrayLike, noise: ArrayLike
    ) -> np.ndarray:
        """Make images from token ids and noise, as `generate` does.

        Args:
            token_ids: int array `(batch_size, length)`, of at most `sequence_length`
                tokens, from 0 to the size of the vocabulary, exclusive.
            noise: float array `(batch_size, latent_dim)`, for instance from
                `galip_keras.noise`.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`.

        Raises:
            ValueError: if a shape or a dtype is another one, or a number is out of
                range.
        """
        token_ids = checked_token_ids(token_ids, self.sizes)
        latents = checked_noise(noise, self.sizes, len(token_ids))
        return self._decode(latents, self._embed_token_ids(token_ids))

    def _embed_token_ids(self, token_ids):
        if self._embed is None:
            encoder = text_encoder(self.backbone.clip)
            # An encoder of its own would be a sublayer for Keras, and saved.
            self._embed = functools.partial(embed_token_ids, encoder)
        return self._embed(token_ids)


def build(
    architecture: str,
    clip: str | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> GALIPTextToImage:
    """Build an untrained GALIP.

    Args:
        architecture: string. A key of `ARCHITECTURES`.
        clip: string. `"random"`, or a source for `load_clip`. Defaults to the
            architecture's own.
        dtype: string or `keras.DTypePolicy`.

    Returns:
        A `GALIPTextToImage`.
    """
    generator, tokenizer = build_generator(architecture, clip, dtype)
    preprocessor = tokenizer and GALIPTextToImagePreprocessor(tokenizer)
    return GALIPTextToImage(GALIPBackbone(generator), preprocessor)
