"""Building blocks of Mate-G and Mate-D. All feature maps are channels last.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), figures 3 and 4.
"""

from typing import Any

import keras
from keras import layers, ops

from galip_keras import backend
from galip_keras.backend import Shape, Tensor
from galip_keras.models.convolutions import (
    PatchConv2D,
    ResizeConv2D,
    conv2d,
    fan_in_uniform,
    nearest_resize,
)

LEAKY_SLOPE = 0.2


def leaky_relu(x: Tensor) -> Tensor:
    return ops.leaky_relu(x, negative_slope=LEAKY_SLOPE)


class DeepFusion(layers.Layer):
    """Deep fusion (DF): affine, LeakyReLU, affine, LeakyReLU.

    An affine scales and shifts each channel. Its factors and offsets come from small
    perceptrons (dense, ReLU, dense) of the condition. The weights of the block's four
    perceptrons are stacked, so that each of the two layers is one product. The last
    dense layers start at weight 0 and bias 1 (scale) or 0 (shift), so the block starts
    as two LeakyReLUs.

    Args:
        **kwargs: keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.
        condition: tensor `(batch_size, condition_dim)`.

    Returns:
        A tensor of the shape of `x`.
    """

    # Stacked in this order: scale and shift of the first affine, then of the second.
    num_perceptrons = 4

    def build(self, x_shape: Shape, condition_shape: Shape) -> None:
        channels = x_shape[-1]
        self.hidden_kernel = self.add_weight(
            shape=(condition_shape[-1], self.num_perceptrons * channels),
            initializer=fan_in_uniform(),
            name="hidden_kernel",
        )
        self.hidden_bias = self.add_weight(
            shape=(self.num_perceptrons * channels,),
            initializer="zeros",
            name="hidden_bias",
        )
        self.output_kernel = self.add_weight(
            shape=(self.num_perceptrons, channels, channels),
            initializer="zeros",
            name="output_kernel",
        )
        self.output_bias = self.add_weight(
            shape=(self.num_perceptrons, channels),
            initializer=_scale_one_shift_zero,
            name="output_bias",
        )

    def call(self, x: Tensor, condition: Tensor) -> Tensor:
        channels = x.shape[-1]
        hidden = ops.relu(ops.matmul(condition, self.hidden_kernel) + self.hidden_bias)
        hidden = ops.reshape(hidden, (-1, self.num_perceptrons, channels))
        affines = ops.einsum("bkc,kcd->bkd", hidden, self.output_kernel)
        affines = (affines + self.output_bias)[:, :, None, None, :]
        affines = ops.unstack(affines, axis=1)
        for scale, shift in (affines[:2], affines[2:]):
            x = backend.scaled_leaky_relu(x, scale, shift, LEAKY_SLOPE)
        return x

    def compute_output_shape(self, x_shape: Shape, condition_shape: Shape) -> Shape:
        return x_shape


def _scale_one_shift_zero(shape, dtype=None):
    scale = 1 - ops.arange(shape[0], dtype="int32") % 2
    return ops.ones(shape, dtype) * ops.cast(scale, dtype)[:, None]


class FusionBlock(layers.Layer):
    """A block of the bridge feature predictor: `x + DF(conv(DF(conv(x))))`.

    Args:
        hidden_channels: int. Channels between the two 3x3 convolutions.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.
        condition: tensor `(batch_size, condition_dim)`.

    Returns:
        A tensor of the shape of `x`.
    """

    def __init__(self, hidden_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_channels = hidden_channels

    def build(self, x_shape: Shape, condition_shape: Shape) -> None:
        dtype = self.dtype_policy
        hidden_shape = (*x_shape[:-1], self.hidden_channels)
        self.conv_1 = conv2d(self.hidden_channels, 3, "conv_1", dtype=dtype)
        self.conv_1.build(x_shape)
        self.fusion_1 = DeepFusion(dtype=dtype, name="fusion_1")
        self.fusion_1.build(hidden_shape, condition_shape)
        self.conv_2 = conv2d(x_shape[-1], 3, "conv_2", dtype=dtype)
        self.conv_2.build(hidden_shape)
        self.fusion_2 = DeepFusion(dtype=dtype, name="fusion_2")
        self.fusion_2.build(x_shape, condition_shape)

    def call(self, x: Tensor, condition: Tensor) -> Tensor:
        residual = self.fusion_1(self.conv_1(x), condition)
        return x + self.fusion_2(self.conv_2(residual), condition)

    def compute_output_shape(self, x_shape: Shape, condition_shape: Shape) -> Shape:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"hidden_channels": self.hidden_channels})
        return config


class GeneratorBlock(layers.Layer):
    """A block of the generator: resize, then `shortcut + conv(DF(conv(DF(x))))`.

    Operations on single pixels (the first fusion, the 1x1 shortcut) commute with the
    nearest resize. They run before it, on the small map, which gives the same numbers
    for a quarter of the work.

    Args:
        filters: int. The number of output channels.
        size: int. Height and width of the output.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, height, channels)`.
        condition: tensor `(batch_size, condition_dim)`.

    Returns:
        A tensor `(batch_size, size, size, filters)`.
    """

    def __init__(self, filters: int, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.size = size

    def build(self, x_shape: Shape, condition_shape: Shape) -> None:
        dtype = self.dtype_policy
        output_shape = self.compute_output_shape(x_shape, condition_shape)
        self.fusion_1 = DeepFusion(dtype=dtype, name="fusion_1")
        self.fusion_1.build(x_shape, condition_shape)
        self.conv_1 = ResizeConv2D(self.filters, self.size, dtype=dtype, name="conv_1")
        self.conv_1.build(x_shape)
        self.fusion_2 = DeepFusion(dtype=dtype, name="fusion_2")
        self.fusion_2.build(output_shape, condition_shape)
        self.conv_2 = conv2d(self.filters, 3, "conv_2", dtype=dtype)
        self.conv_2.build(output_shape)
        self.shortcut = None
        if x_shape[-1] != self.filters:
            self.shortcut = conv2d(self.filters, 1, "shortcut", dtype=dtype)
            self.shortcut.build(x_shape)

    def call(self, x: Tensor, condition: Tensor) -> Tensor:
        residual = self.conv_1(self.fusion_1(x, condition))
        residual = self.conv_2(self.fusion_2(residual, condition))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nearest_resize(shortcut, self.size) + residual

    def compute_output_shape(self, x_shape: Shape, condition_shape: Shape) -> Shape:
        return (x_shape[0], self.size, self.size, self.filters)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"filters": self.filters, "size": self.size})
        return config


class DiscriminatorBlock(layers.Layer):
    """A block of Mate-D: `shortcut(x) + gamma * r(x) [+ beta * next_features]`.

    `r` is conv3x3, LeakyReLU, conv3x3, LeakyReLU without biases. The shortcut is a 1x1
    convolution where the channels change.

    Args:
        filters: int. The number of output channels.
        use_features: bool. Whether the block adds the next CLIP features.
        initial_scale: float. Initial value of `gamma` and `beta`.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.
        next_features: tensor of the shape of the output, if `use_features`.

    Returns:
        A tensor `(batch_size, height, width, filters)`.
    """

    def __init__(
        self,
        filters: int,
        use_features: bool,
        initial_scale: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.use_features = use_features
        self.initial_scale = initial_scale

    def build(self, x_shape: Shape, next_features_shape: Shape | None = None) -> None:
        dtype = self.dtype_policy
        hidden_shape = (*x_shape[:-1], self.filters)
        self.conv_1 = PatchConv2D(self.filters, 3, dtype=dtype, name="conv_1")
        self.conv_1.build(x_shape)
        self.conv_2 = PatchConv2D(self.filters, 3, dtype=dtype, name="conv_2")
        self.conv_2.build(hidden_shape)
        self.shortcut = None
        if x_shape[-1] != self.filters:
            self.shortcut = conv2d(self.filters, 1, "shortcut", dtype=dtype)
            self.shortcut.build(x_shape)
        start = keras.initializers.Constant(self.initial_scale)
        self.gamma = self.add_weight(shape=(), initializer=start, name="gamma")
        if self.use_features:
            self.beta = self.add_weight(shape=(), initializer=start, name="beta")

    def call(self, x: Tensor, next_features: Tensor | None = None) -> Tensor:
        residual = leaky_relu(self.conv_2(leaky_relu(self.conv_1(x))))
        x = x if self.shortcut is None else self.shortcut(x)
        x = x + self.gamma * residual
        return x + self.beta * next_features if self.use_features else x

    def compute_output_shape(
        self, x_shape: Shape, next_features_shape: Shape | None = None
    ) -> Shape:
        return (*x_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "filters": self.filters,
                "use_features": self.use_features,
                "initial_scale": self.initial_scale,
            }
        )
        return config
