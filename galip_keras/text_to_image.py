"""GALIP as a keras-hub task: presets, prompts in, pictures out."""

import re
from pathlib import Path

import keras
import keras_hub
import numpy as np
from keras import ops
from keras_hub.models import Backbone, TextToImage, TextToImagePreprocessor

from galip_keras import backend, prompts
from galip_keras.backend import devices
from galip_keras.clip import FrozenCLIP, load_clip, random_clip
from galip_keras.mate_g import MateG

# Architectures that `from_preset` builds without a preset folder: untrained generators
# on a CLIP that keras-hub knows, or on a random one.
ARCHITECTURES = {
    "galip_vit_base_patch32": {
        "description": "The paper's model, generator untrained, on OpenAI's ViT-B/32.",
        "clip": "clip_vit_base_patch32",
    },
    "galip_small": {
        "description": "For pictures of 64 pixels, on a small CLIP of your own (--clip "
        "FOLDER). What ships as toybirds.",
        "clip": "random",
        "random_clip": {
            "image_size": 64,
            "patch_size": 8,
            # All numbers of a patch: in fewer, fine lines would be invisible.
            "hidden_dim": 192,
            "num_layers": 4,
            "num_heads": 6,
            "embedding_dim": 128,
            "text_hidden_dim": 128,
            "text_num_layers": 2,
            "text_num_heads": 4,
        },
        # With the pixels themselves, through the embedding of the patches: a small CLIP
        # overlooks much of what makes a picture sharp.
        "feature_layers": (-1, 0, 2),
        "generator": {
            "base_channels": 16,
            "bridge_channels": 32,
            "prompt_layers": (1, 2, 3),
        },
        "discriminator": {"initial_scale": 0.5},
        # A small CLIP is easily pleased: by the paper's similarity weight it would be
        # by colours that no picture can have.
        "training": {
            "generator_lr": 4e-4,
            "discriminator_lr": 8e-4,
            "similarity_weight": 1.0,
            "penalty_weight": 2.0,
            "range_weight": 10.0,
        },
    },
    "galip_tiny": {
        "description": "A tiny model on a tiny random CLIP, for tests and first steps. "
        "Its pictures mean nothing.",
        "clip": "random",
        "random_clip": {
            "image_size": 64,
            "patch_size": 16,
            "hidden_dim": 64,
            "num_layers": 4,
            "num_heads": 2,
            "embedding_dim": 32,
            "text_hidden_dim": 64,
            "text_num_layers": 2,
            "text_num_heads": 2,
        },
        "feature_layers": (0, 1, 3),
        "generator": {
            "base_channels": 16,
            "bridge_channels": 32,
            "prompt_layers": (1, 2, 3),
        },
    },
}


# Presets that ship with the package, by the names of their folders.
BUNDLED = {
    "toybirds": "A small model that draws the birds of the data set toybirds, ready to "
    "use.",
}


def preset_folder(preset):
    """Where a preset of `BUNDLED` lies; any other is given back as it is."""
    if preset not in BUNDLED:
        return preset
    return str(Path(__file__).parent / "presets" / preset)


def noise(seeds, latent_dim):
    """The noise of GALIP: one seed an image, the same on every backend.

    Args:
        seeds: int64 tensor or sequence of ints, `(batch_size,)`, from 0 to 2**63 - 1.
        latent_dim: int. Size of the noise of an image.

    Returns:
        A float32 `tf.Tensor` `(batch_size, latent_dim)`, standard normal: row i is
        drawn by the Philox algorithm from the pair (seeds[i], 0) alone.

    Example:

    ```python
    galip_keras.noise([0, 1], latent_dim=100)  # (2, 100)
    ```
    """
    import tensorflow as tf

    def draw(seed):
        pair = tf.stack([seed, tf.zeros_like(seed)])
        return tf.random.stateless_normal([latent_dim], seed=pair, alg="philox")

    seeds = tf.convert_to_tensor(seeds, tf.int64)
    return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIPBackbone(Backbone):
    """Token ids and noise to an image: CLIP's text encoder and Mate-G, functional.

    Args:
        generator: a `galip_keras.MateG`. It brings the frozen CLIP.
        dtype: string or `keras.DTypePolicy`. Defaults to the generator's.
        name: string.
        **kwargs: other keyword arguments of `keras_hub.models.Backbone`.

    Call arguments:
        inputs: dict with `"token_ids"`, an int tensor `(batch_size, sequence_length)`,
            and `"noise"`, a float tensor `(batch_size, latent_dim)`.

    Returns:
        Images, a float32 tensor `(batch_size, image_size, image_size, 3)`, around
        [-1, 1] but not clipped to it.

    Example:

    ```python
    backbone = galip_keras.GALIPBackbone.from_preset("toybirds")
    inputs = {"token_ids": np.ones((1, 77), "int32"), "noise": np.zeros((1, 100))}
    backbone(inputs)  # (1, 64, 64, 3)
    ```
    """

    def __init__(self, generator, dtype=None, name=None, **kwargs):
        # === Layers ===
        self.generator = generator
        self.clip = generator.clip

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        noise_input = keras.Input((generator.latent_dim,), name="noise")
        images = generator(noise_input, self.clip.embed_text(token_ids))
        super().__init__(
            inputs={"token_ids": token_ids, "noise": noise_input},
            outputs=images,
            dtype=dtype or generator.dtype_policy,
            name=name,
            **kwargs,
        )
        # `trainable=True` of a saved config has just unfrozen everything inside.
        self.clip.trainable = False

    @property
    def latent_shape(self):
        """`(None, latent_dim)`, the shape of the noise."""
        return (None, self.generator.latent_dim)

    def get_config(self):
        config = super().get_config()
        config.update({"generator": keras.layers.serialize(self.generator)})
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config, generator=keras.layers.deserialize(config["generator"]))
        return super().from_config(config)

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """As in keras-hub, and for the names in `BUNDLED` and `ARCHITECTURES`."""
        if preset in ARCHITECTURES:
            return build(preset, **kwargs).backbone
        return super().from_preset(preset_folder(preset), load_weights, **kwargs)


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
        self.jit_compile = backend.jit_pays(backbone.generator)
        self._embedder = None
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
        if self._embedder is None:
            token_ids = self.backbone.input["token_ids"]
            self._embedder = keras.Model(
                token_ids, self.backbone.clip.embed_text(token_ids)
            )
        return self._embedder.predict_on_batch(np.asarray(inputs))

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
        if not truncation >= 0:
            raise ValueError(f"`truncation` must be at least 0. Received: {truncation}")
        (inputs,), is_scalar = self._normalize_generate_inputs(inputs)
        token_ids = inputs["prompts"]
        if self.preprocessor is not None:
            token_ids = self.preprocessor.generate_preprocess(token_ids)
        seeds = _seeds(seed, len(token_ids))
        latents = np.asarray(noise(seeds, self.latent_dim))
        latents = ops.convert_to_tensor(latents * np.float32(truncation))
        token_ids = ops.convert_to_tensor(np.asarray(token_ids), "int32")
        images = self.make_generate_function()(latents, token_ids)
        return self._normalize_generate_outputs([images], is_scalar)


def _seeds(seed, count):
    if seed is None:
        seed = int(np.random.default_rng().integers(2**32))
    seeds = [seed + i for i in range(count)] if np.ndim(seed) == 0 else list(seed)
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds were given for {count} pictures.")
    if min(seeds, default=0) < 0 or max(seeds, default=0) >= 2**63:
        raise ValueError(f"A seed must be from 0 to 2**63 - 1. Received: {seed}")
    return seeds


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
    spec = ARCHITECTURES[architecture]
    clip = clip or spec["clip"]
    if clip == "random":
        backbone, tokenizer = random_clip(**spec.get("random_clip", {}), dtype=dtype)
    else:
        backbone, tokenizer = load_clip(clip, dtype=dtype)
    frozen = FrozenCLIP(
        backbone,
        feature_layers=spec.get("feature_layers", (1, 4, 8)),
    )
    generator = MateG(frozen, dtype=dtype, **spec.get("generator", {}))
    preprocessor = tokenizer and GALIPTextToImagePreprocessor(tokenizer)
    return GALIPTextToImage(GALIPBackbone(generator), preprocessor)
