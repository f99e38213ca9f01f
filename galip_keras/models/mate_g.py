"""Mate-G, the generator of GALIP, built around the frozen CLIP-ViT.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from galip_keras.backend import Shape, Tensor
from galip_keras.models.clip import FrozenCLIP, check_blocks
from galip_keras.models.convolutions import conv2d, fan_in_uniform
from galip_keras.models.layers import FusionBlock, GeneratorBlock, leaky_relu


@keras.saving.register_keras_serializable(package="galip_keras")
class BridgeFeaturePredictor(layers.Layer):
    """Predicts the bridge feature, which the CLIP-ViT takes in place of image patches.

    Args:
        grid_size: int. Height and width of the bridge feature.
        hidden_dim: int. Channels of the bridge feature.
        base_channels: int. Channels of the fusion blocks, which have half as many
            between their convolutions.
        num_blocks: int. Number of fusion blocks.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        noise: tensor `(batch_size, latent_dim)`.
        condition: tensor `(batch_size, condition_dim)`.

    Returns:
        A tensor `(batch_size, grid_size, grid_size, hidden_dim)`.

    Example:

    ```python
    predictor = galip_keras.BridgeFeaturePredictor(grid_size=7, hidden_dim=768)
    noise, text = keras.random.normal((2, 100)), keras.random.normal((2, 512))
    condition = keras.ops.concatenate([noise, text], axis=-1)
    predictor(noise, condition)  # (2, 7, 7, 768)
    ```
    """

    def __init__(
        self,
        grid_size: int,
        hidden_dim: int,
        base_channels: int = 64,
        num_blocks: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.grid_size = grid_size
        self.hidden_dim = hidden_dim
        self.base_channels = base_channels
        self.num_blocks = num_blocks

    def build(self, noise_shape: Shape, condition_shape: Shape) -> None:
        dtype = self.dtype_policy
        self.code = layers.Dense(
            self.grid_size**2 * self.base_channels,
            kernel_initializer=fan_in_uniform(),
            dtype=dtype,
            name="code",
        )
        self.code.build(noise_shape)
        map_shape = (None, self.grid_size, self.grid_size, self.base_channels)
        self.fusion_blocks = [
            FusionBlock(self.base_channels // 2, dtype=dtype, name=f"fusion_block_{i}")
            for i in range(self.num_blocks)
        ]
        for block in self.fusion_blocks:
            block.build(map_shape, condition_shape)
        self.conv = conv2d(self.hidden_dim, 5, "conv", dtype=dtype)
        self.conv.build(map_shape)

    def call(self, noise: Tensor, condition: Tensor) -> Tensor:
        shape = (-1, self.grid_size, self.grid_size, self.base_channels)
        x = ops.reshape(self.code(noise), shape)
        for block in self.fusion_blocks:
            x = block(x, condition)
        return self.conv(x)

    def compute_output_shape(self, noise_shape: Shape, condition_shape: Shape) -> Shape:
        return (noise_shape[0], self.grid_size, self.grid_size, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "grid_size": self.grid_size,
                "hidden_dim": self.hidden_dim,
                "base_channels": self.base_channels,
                "num_blocks": self.num_blocks,
            }
        )
        return config


@keras.saving.register_keras_serializable(package="galip_keras")
class PromptPredictor(layers.Layer):
    """Predicts one prompt token for each prompted ViT block from the condition.

    Args:
        num_prompts: int. Number of prompts.
        hidden_dim: int. Channels of a token.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        condition: tensor `(batch_size, condition_dim)`.

    Returns:
        A tensor `(batch_size, num_prompts, hidden_dim)`.

    Example:

    ```python
    predictor = galip_keras.PromptPredictor(num_prompts=8, hidden_dim=768)
    predictor(keras.random.normal((2, 612)))  # (2, 8, 768)
    ```
    """

    def __init__(self, num_prompts: int, hidden_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_prompts = num_prompts
        self.hidden_dim = hidden_dim

    def build(self, condition_shape: Shape) -> None:
        self.dense = layers.Dense(
            self.num_prompts * self.hidden_dim,
            kernel_initializer=fan_in_uniform(),
            dtype=self.dtype_policy,
            name="dense",
        )
        self.dense.build(condition_shape)

    def call(self, condition: Tensor) -> Tensor:
        shape = (-1, self.num_prompts, self.hidden_dim)
        return ops.reshape(self.dense(condition), shape)

    def compute_output_shape(self, condition_shape: Shape) -> Shape:
        return (condition_shape[0], self.num_prompts, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"num_prompts": self.num_prompts, "hidden_dim": self.hidden_dim})
        return config


@keras.saving.register_keras_serializable(package="galip_keras")
class MateG(keras.Model):
    """The generator: makes an image from noise and a text embedding in one pass.

    The bridge feature predictor and the prompt predictor drive the frozen CLIP-ViT. Its
    output is added to the bridge feature, and generator blocks enlarge the sum to an
    image. All sizes that are not arguments come from the CLIP.

    Args:
        clip: a `galip_keras.FrozenCLIP`.
        image_size: int. Height and width of the images. Defaults to CLIP's.
        latent_dim: int. Size of the noise.
        base_channels: int. Channels of the last generator block. Earlier blocks have up
            to eight times as many.
        bridge_channels: int. Channels of the bridge feature predictor.
        prompt_layers: tuple of ints. Transformer blocks that get a prompt; may be
            empty.
        bridge_scale: float. Factor of the visual map before it joins the bridge
            feature.
        dtype: string or `keras.DTypePolicy`.
        name: string.
        **kwargs: other keyword arguments of `keras.Model`.

    Call arguments:
        noise: tensor `(batch_size, latent_dim)`, standard normal.
        text_embeddings: tensor `(batch_size, embedding_dim)`, from
            `FrozenCLIP.embed_text`. Or one embedding for each part that takes a
            condition, `(batch_size, num_conditions, embedding_dim)`: the first for the
            bridge feature and the prompts, the others for the generator blocks.

    Returns:
        A float32 tensor `(batch_size, image_size, image_size, 3)`, around [-1, 1] but
        not clipped to it.

    Raises:
        ValueError: if a size is too small, or CLIP lacks a prompted block.

    Example:

    ```python
    # Or FrozenCLIP(keras_hub.models.CLIPBackbone.from_preset("clip_vit_base_patch32")).
    clip = galip_keras.GALIPBackbone.from_preset("toybirds").clip
    generator = galip_keras.MateG(clip, prompt_layers=(1, 2, 3))
    noise = galip_keras.noise([0, 1], generator.latent_dim)
    generator(noise, keras.random.normal((2, clip.embedding_dim)))  # (2, 64, 64, 3)
    ```

    Reference:
        [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
        https://arxiv.org/abs/2301.12959)
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        image_size: int | None = None,
        latent_dim: int = 100,
        base_channels: int = 64,
        bridge_channels: int = 64,
        prompt_layers: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8),
        bridge_scale: float = 0.1,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = "mate_g",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, name=name, **kwargs)
        image_size = clip.image_size if image_size is None else image_size
        check_blocks("prompt_layers", prompt_layers, clip.num_layers)
        _check_sizes(clip, image_size, latent_dim, base_channels, bridge_channels)

        # === Layers ===
        self.clip = clip
        self.bridge_predictor = BridgeFeaturePredictor(
            clip.grid_size,
            clip.hidden_dim,
            base_channels=bridge_channels,
            dtype=dtype,
            name="bridge_predictor",
        )
        self.prompt_predictor = None
        if prompt_layers:
            self.prompt_predictor = PromptPredictor(
                len(prompt_layers),
                clip.hidden_dim,
                dtype=dtype,
                name="prompt_predictor",
            )
        sizes = block_sizes(image_size, clip.grid_size)
        channels = [base_channels * min(2**i, 8) for i in range(len(sizes) + 1)][::-1]
        self.conv = conv2d(channels[0], 5, "conv", dtype=dtype)
        self.generator_blocks = [
            GeneratorBlock(filters, size, dtype=dtype, name=f"generator_block_{i}")
            for i, (filters, size) in enumerate(zip(channels[1:], sizes))
        ]
        self.to_rgb = conv2d(3, 3, "to_rgb", dtype=dtype)

        # === Weights ===
        condition_shape = (None, latent_dim + clip.embedding_dim)
        self.bridge_predictor.build((None, latent_dim), condition_shape)
        if self.prompt_predictor is not None:
            self.prompt_predictor.build(condition_shape)
        self.conv.build((None, clip.grid_size, clip.grid_size, clip.hidden_dim))
        shape: Shape = (None, clip.grid_size, clip.grid_size, channels[0])
        for block in self.generator_blocks:
            block.build(shape, condition_shape)
            shape = block.compute_output_shape(shape, condition_shape)
        self.to_rgb.build(shape)
        self.built = True

        # === Config ===
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.base_channels = base_channels
        self.bridge_channels = bridge_channels
        self.prompt_layers = tuple(prompt_layers)
        self.bridge_scale = bridge_scale

    @property
    def num_conditions(self) -> int:
        """Number of parts with a condition: the bridge and the generator blocks."""
        return 1 + len(self.generator_blocks)

    def call(self, noise: Tensor, text_embeddings: Tensor) -> Tensor:
        condition, *conditions = self._conditions(noise, text_embeddings)
        bridge = self.bridge_predictor(noise, condition)
        prompts = self.prompt_predictor and self.prompt_predictor(condition)
        visual_map = self.clip.transform_bridge(bridge, prompts, self.prompt_layers)
        visual_map = ops.cast(visual_map, bridge.dtype)
        x = self.conv(bridge + self.bridge_scale * visual_map)
        for block, condition in zip(self.generator_blocks, conditions):
            x = block(x, condition)
        return ops.cast(self.to_rgb(leaky_relu(x)), "float32")

    def _conditions(self, noise, text_embeddings):
        if len(text_embeddings.shape) == 2:
            condition = ops.concatenate([noise, text_embeddings], axis=-1)
            return [condition] * self.num_conditions
        if text_embeddings.shape[1] != self.num_conditions:
            raise ValueError(
                f"This generator takes {self.num_conditions} text embeddings per "
                f"image, or one. Received: {text_embeddings.shape[1]}"
            )
        return [
            ops.concatenate([noise, text_embeddings[:, i]], axis=-1)
            for i in range(self.num_conditions)
        ]

    def compute_output_shape(
        self, noise_shape: Shape, text_embeddings_shape: Shape
    ) -> Shape:
        return (noise_shape[0], self.image_size, self.image_size, 3)

    def get_config(self) -> dict[str, Any]:
        return {
            "clip": keras.layers.serialize(self.clip),
            "image_size": self.image_size,
            "latent_dim": self.latent_dim,
            "base_channels": self.base_channels,
            "bridge_channels": self.bridge_channels,
            "prompt_layers": self.prompt_layers,
            "bridge_scale": self.bridge_scale,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> MateG:
        config = dict(config, clip=keras.layers.deserialize(config["clip"]))
        return cls(**config)


def block_sizes(image_size: int, grid_size: int) -> list[int]:
    """Output sizes of the generator blocks: doubling from 8 to the image size.

    With a grid of more than 8 patches, no block is smaller than the grid.
    """
    num_blocks = math.ceil(math.log2(image_size)) - 2
    sizes = [max(8 * 2**i, grid_size) for i in range(num_blocks)]
    return [*sizes[:-1], image_size]


def _check_sizes(clip, image_size, latent_dim, base_channels, bridge_channels):
    smallest = max(8, clip.grid_size)
    if image_size < smallest:
        raise ValueError(
            f"`image_size` must be at least {smallest} for a CLIP with "
            f"{clip.grid_size}x{clip.grid_size} patches. "
            f"Received: image_size={image_size}"
        )
    for name, value, least in (
        ("latent_dim", latent_dim, 1),
        ("base_channels", base_channels, 1),
        ("bridge_channels", bridge_channels, 2),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {value}")
