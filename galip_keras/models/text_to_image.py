"""GALIP as a keras-hub task: presets, prompts in, pictures out."""

import keras
import numpy as np
from keras import ops
from keras_hub.models import TextToImage

from galip_keras import backend
from galip_keras.backend import devices
from galip_keras.models.architectures import (
    ARCHITECTURES,
    build_generator,
    preset_folder,
)
from galip_keras.models.backbone import GALIPBackbone
from galip_keras.models.noise import expand_seeds, noise
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor
from galip_keras.models.text_encoder import text_encoder


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIPTextToImage(TextToImage):
    """Pictures from prompts in one forward pass.

    Args:
        backbone: a `GALIPBackbone`.
        preprocessor: a `GALIPTextToImagePreprocessor`, or None: prompts are token ids
            then.
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

    def __init__(self, backbone, preprocessor=None, **kwargs):
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        super().__init__(inputs=backbone.input, outputs=backbone.output, **kwargs)
        self.jit_compile = backend.should_jit(backbone.generator)
        self._text_encoder = None
        self._decoders = {}

    jit_compile = devices.jit_compile
    support_negative_prompts = False

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """As in keras-hub, and for the names in `BUNDLED` and `ARCHITECTURES`."""
        if preset in ARCHITECTURES:
            return build(preset, **kwargs)
        return super().from_preset(preset_folder(preset), load_weights, **kwargs)

    @property
    def latent_dim(self):
        """Size of the noise of a picture."""
        return self.backbone.generator.latent_dim

    def embed(self, inputs):
        """Sentence embeddings: what makes a picture, besides noise.

        Args:
            inputs: a list or tensor of strings, or token ids without a preprocessor.

        Returns:
            A float32 array `(batch_size, embedding_dim)`, not normalized.
        """
        if self.preprocessor is not None:
            inputs = self.preprocessor.generate_preprocess(inputs)
        if self._text_encoder is None:
            self._text_encoder = text_encoder(self.backbone.clip)
        return self._text_encoder.predict_on_batch(np.asarray(inputs))

    def decode(self, noise, text_embeddings):
        """Makes pictures of noise and sentence embeddings.

        Args:
            noise: float array `(batch_size, latent_dim)`, such as `galip_keras.noise`
                makes it.
            text_embeddings: float array `(batch_size, embedding_dim)`, or one embedding
                for each part of the generator, as `galip_keras.MateG` takes it.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`.
        """
        arrays = [np.asarray(x, "float32") for x in (noise, text_embeddings)]
        shape = arrays[1].shape[1:]
        if shape not in self._decoders:
            inputs = [keras.Input(x.shape[1:]) for x in arrays]
            self._decoders[shape] = keras.Model(
                inputs, self.backbone.generator(*inputs)
            )
        images = self._decoders[shape].predict_on_batch(arrays)
        return self._normalize_generate_outputs([images], False)

    def generate_step(self, latents, token_ids):
        """Images `(batch_size, image_size, image_size, 3)` from noise and token ids."""
        return self.backbone({"token_ids": token_ids, "noise": latents})

    def generate(self, inputs, seed=None, truncation=1.0):
        """Makes pictures.

        Args:
            inputs: a string, or a list or tensor of strings. One prompt a picture.
            seed: int, or a sequence of ints, one a picture. Picture i of a single seed
                uses `seed + i`. The same prompt and seed give the same picture,
                whatever else is in the batch. Drawn at random by default.
            truncation: float, at least 0. Factor of the noise: less than 1 trades
                variety for typical pictures.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`, or without its
            first axis for a single string.

        Raises:
            ValueError: for a negative seed or truncation, or too few seeds.
        """
        (inputs,), is_scalar = self._normalize_generate_inputs(inputs)
        token_ids = inputs["prompts"]
        if self.preprocessor is not None:
            token_ids = self.preprocessor.generate_preprocess(token_ids)
        seeds = expand_seeds(seed, len(token_ids))
        latents = noise(seeds, self.latent_dim, truncation)
        latents = ops.convert_to_tensor(latents)
        token_ids = ops.convert_to_tensor(np.asarray(token_ids), "int32")
        images = self.make_generate_function()(latents, token_ids)
        return self._normalize_generate_outputs([images], is_scalar)


def build(architecture, clip=None, dtype=None):
    """Builds an untrained GALIP.

    Args:
        architecture: string. A key of `ARCHITECTURES`.
        clip: string. `"random"`, or what `load_clip` takes. Defaults to the
            architecture's own.
        dtype: string or `keras.DTypePolicy`.

    Returns:
        A `GALIPTextToImage`.
    """
    generator, tokenizer = build_generator(architecture, clip, dtype)
    preprocessor = tokenizer and GALIPTextToImagePreprocessor(tokenizer)
    return GALIPTextToImage(GALIPBackbone(generator), preprocessor)
