"""Mate-D, the discriminator of GALIP: a feature extractor and a matching head.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), section 3.2.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from galip_keras.backend import Shape, Tensor
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.convolutions import PatchConv2D
from galip_keras.models.layers import DiscriminatorBlock, leaky_relu


@keras.saving.register_keras_serializable(package="galip_keras")
class MateD(keras.Model):
    """The discriminator: maps tapped CLIP features and a text embedding to a logit.

    The features of the first tap pass one block for each further tap, which adds that
    tap's features, and a last block that narrows the channels. The matching head
    repeats the text embedding over the map and reduces both to one logit by two valid
    convolutions, 4x4 on the paper's 7x7 map. On a smaller map the kernels shrink to
    fit. On a larger map the logits of all positions are averaged.

    The discriminator does not hold the frozen CLIP: pass it the features that
    `FrozenCLIP` extracts.

    Args:
        features_shape: tuple of ints `(num_taps, grid_size, grid_size, hidden_dim)`.
        embedding_dim: int. Size of a text embedding.
        extractor_channels: int. Channels of the extracted feature. Defaults to the
            paper's 512, or `hidden_dim` if that is less.
        head_channels: int. Channels between the convolutions of the matching head.
        initial_scale: float. Initial factor of the residuals and of the further taps.
            From the paper's 0, they take thousands of steps to grow.
        dtype: string or `keras.DTypePolicy`.
        name: string.
        **kwargs: other keyword arguments of `keras.Model`.

    Call arguments:
        features: tensor `(batch_size, num_taps, grid_size, grid_size, hidden_dim)`,
            from `FrozenCLIP.extract_features`.
        text_embeddings: tensor `(batch_size, embedding_dim)`.

    Returns:
        Logits, a float32 tensor `(batch_size, 1)`: high for real images that match
        their text.

    Raises:
        ValueError: if there is no tap, or the grid is too small.

    Example:

    ```python
    clip = galip_keras.GALIPBackbone.from_preset("toybirds").clip
    discriminator = galip_keras.MateD.for_clip(clip)
    features = clip.extract_features(keras.random.uniform((2, 64, 64, 3), -1, 1))
    discriminator(features, keras.random.normal((2, clip.embedding_dim)))  # (2, 1)
    ```

    Reference:
        [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
        https://arxiv.org/abs/2301.12959)
    """

    def __init__(
        self,
        features_shape: tuple[int, int, int, int],
        embedding_dim: int,
        extractor_channels: int | None = None,
        head_channels: int = 128,
        initial_scale: float = 0.0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "mate_d",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype, name=name, **kwargs)
        num_taps, grid_size, _, hidden_dim = features_shape
        if num_taps < 1 or grid_size < 2:
            raise ValueError(
                "`features_shape` must hold at least one tap of 2x2 patches. "
                f"Received: features_shape={features_shape}"
            )
        extractor_channels = extractor_channels or min(512, hidden_dim)

        # === Layers ===
        options: dict[str, Any] = {"initial_scale": initial_scale, "dtype": dtype}
        self.tap_blocks = [
            DiscriminatorBlock(hidden_dim, True, name=f"tap_block_{i}", **options)
            for i in range(num_taps - 1)
        ]
        self.narrow_block = DiscriminatorBlock(
            extractor_channels, False, name="narrow_block", **options
        )
        kernel_1 = min(4, grid_size // 2 + 1)
        kernel_2 = min(4, grid_size - kernel_1 + 1)
        self.head_conv_1, self.head_conv_2 = (
            PatchConv2D(filters, kernel, padding="valid", dtype=dtype, name=name)
            for filters, kernel, name in (
                (head_channels, kernel_1, "head_conv_1"),
                (1, kernel_2, "head_conv_2"),
            )
        )

        # === Weights ===
        map_shape = (None, grid_size, grid_size, hidden_dim)
        for block in self.tap_blocks:
            block.build(map_shape, map_shape)
        self.narrow_block.build(map_shape)
        joint_channels = extractor_channels + embedding_dim
        self.head_conv_1.build((*map_shape[:3], joint_channels))
        rest = grid_size - kernel_1 + 1
        self.head_conv_2.build((None, rest, rest, head_channels))
        self.built = True

        # === Config ===
        self.features_shape = tuple(features_shape)
        self.embedding_dim = embedding_dim
        self.extractor_channels = extractor_channels
        self.head_channels = head_channels
        self.initial_scale = initial_scale

    @classmethod
    def for_clip(cls, clip: FrozenCLIP, **kwargs: Any) -> MateD:
        """Build the discriminator that fits a `galip_keras.FrozenCLIP`."""
        grid = (clip.grid_size, clip.grid_size, clip.hidden_dim)
        return cls((len(clip.feature_layers), *grid), clip.embedding_dim, **kwargs)

    def extract(self, features: Tensor) -> Tensor:
        """Extract one feature map from the tapped ones.

        Args:
            features: tensor `(batch_size, num_taps, grid_size, grid_size, hidden_dim)`.

        Returns:
            A tensor `(batch_size, grid_size, grid_size, extractor_channels)`.
        """
        features = ops.cast(features, self.compute_dtype)
        x, *others = ops.unstack(features, axis=1)
        for block, next_features in zip(self.tap_blocks, others):
            x = block(x, next_features)
        return self.narrow_block(x)

    def match(self, extracted: Tensor, text_embeddings: Tensor) -> Tensor:
        """Judge how well extracted features match text embeddings.

        Args:
            extracted: tensor that `extract` returned.
            text_embeddings: tensor `(batch_size, embedding_dim)`.

        Returns:
            Logits, a float32 tensor `(batch_size, 1)`.
        """
        text = ops.cast(text_embeddings, extracted.dtype)[:, None, None, :]
        text = ops.broadcast_to(text, (*ops.shape(extracted)[:3], text.shape[-1]))
        x = ops.concatenate([extracted, text], axis=-1)
        x = self.head_conv_2(leaky_relu(self.head_conv_1(x)))
        return ops.cast(ops.mean(x, axis=(1, 2)), "float32")

    def call(self, features: Tensor, text_embeddings: Tensor) -> Tensor:
        return self.match(self.extract(features), text_embeddings)

    def compute_output_shape(
        self, features_shape: Shape, text_embeddings_shape: Shape
    ) -> Shape:
        return (features_shape[0], 1)

    def get_config(self) -> dict[str, Any]:
        return {
            "features_shape": self.features_shape,
            "embedding_dim": self.embedding_dim,
            "extractor_channels": self.extractor_channels,
            "head_channels": self.head_channels,
            "initial_scale": self.initial_scale,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
        }
