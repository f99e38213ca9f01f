"""The building blocks of Mate-G and Mate-D. All feature maps are channels last.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), figures 3 and 4.
"""

import keras
from keras import layers, ops

LEAKY_SLOPE = 0.2

# What the paper's networks start from: uniform within 1 / sqrt(fan_in).
fan_in_uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def leaky_relu(x):
    return ops.leaky_relu(x, negative_slope=LEAKY_SLOPE)


def conv2d(filters, kernel_size, name, padding="same", use_bias=True, dtype=None):
    """A `keras.layers.Conv2D` as all networks here use it."""
    return layers.Conv2D(
        filters,
        kernel_size,
        padding=padding,
        use_bias=use_bias,
        data_format="channels_last",
        kernel_initializer=fan_in_uniform,
        dtype=dtype,
        name=name,
    )


def nearest_resize(images, size):
    """Resizes square maps by nearest neighbour, source index `floor(i * in / out)`.

    This is PyTorch's rule, which the paper's weights depend on. The backends' own
    "nearest" differ from it and from each other, hence the explicit gather.

    Args:
        images: tensor `(batch_size, height, height, channels)`.
        size: int. Height and width of the result.

    Returns:
        A tensor `(batch_size, size, size, channels)`.
    """
    old_size = images.shape[1]
    if size == old_size:
        return images
    if size % old_size == 0:
        images = ops.repeat(images, size // old_size, axis=1)
        return ops.repeat(images, size // old_size, axis=2)
    index = [i * old_size // size for i in range(size)]
    return ops.take(ops.take(images, index, axis=1), index, axis=2)


class ResizeConv2D(layers.Conv2D):
    """Nearest resize to a size, then a 3x3 convolution, as one layer.

    After a resize by two, every 3x3 window covers only 2x2 different pixels: the
    convolution equals four 2x2 convolutions of the small map, one for each parity of
    row and column, whose kernels are sums of the taps that fall on the same pixel.
    That is 4/9 of the work for the same numbers.

    Args:
        filters: int. The number of output channels.
        size: int. Height and width after the resize.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, height, channels)`.

    Returns:
        A tensor `(batch_size, size, size, filters)`.
    """

    def __init__(self, filters, size, **kwargs):
        super().__init__(
            filters,
            3,
            padding="same",
            data_format="channels_last",
            kernel_initializer=fan_in_uniform,
            **kwargs,
        )
        self.size = size

    def call(self, x):
        if self.size != 2 * x.shape[1]:
            return super().call(nearest_resize(x, self.size))
        return self._call_after_doubling(x)

    def _call_after_doubling(self, x):
        height, width, channels = x.shape[1], x.shape[2], self.filters
        # taps[parity, i, j]: does tap j of the kernel fall on pixel i of the window?
        taps = ops.convert_to_tensor(
            [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=self.compute_dtype
        )
        kernels = ops.einsum("apr,bqs,rscd->abpqcd", taps, taps, self.kernel)
        x = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        phases = [
            ops.conv(
                x[:, a : a + height + 1, b : b + width + 1],
                kernels[a, b],
                padding="valid",
                data_format="channels_last",
            )
            for a in (0, 1)
            for b in (0, 1)
        ]
        x = ops.reshape(ops.stack(phases, axis=3), (-1, height, width, 2, 2, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, 2 * height, 2 * width, channels)) + self.bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, self.filters)

    def get_config(self):
        config = layers.Layer.get_config(self)
        config.update({"filters": self.filters, "size": self.size})
        return config


class DeepFusion(layers.Layer):
    """Deep fusion (DF): affine, LeakyReLU, affine, LeakyReLU.

    An affine scales and shifts each channel by what a small perceptron (dense, ReLU,
    dense) makes of the condition. The four perceptrons of the block are held stacked,
    so that each of their two layers is one product. The last dense layers start at
    weight 0 and bias 1 (scale) or 0 (shift): the block starts as two LeakyReLUs.

    Args:
        **kwargs: keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.
        condition: tensor `(batch_size, condition_dim)`.

    Returns:
        A tensor of the shape of `x`.
    """

    # The order of the stacked perceptrons: scale and shift of the first affine, of the
    # second.
    num_perceptrons = 4

    def build(self, x_shape, condition_shape):
        channels = x_shape[-1]
        self.hidden_kernel = self.add_weight(
            shape=(condition_shape[-1], self.num_perceptrons * channels),
            initializer=fan_in_uniform,
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

    def call(self, x, condition):
        channels = x.shape[-1]
        hidden = ops.relu(ops.matmul(condition, self.hidden_kernel) + self.hidden_bias)
        hidden = ops.reshape(hidden, (-1, self.num_perceptrons, channels))
        affines = ops.einsum("bkc,kcd->bkd", hidden, self.output_kernel)
        affines = (affines + self.output_bias)[:, :, None, None, :]
        x = leaky_relu(x * affines[:, 0] + affines[:, 1])
        return leaky_relu(x * affines[:, 2] + affines[:, 3])

    def compute_output_shape(self, x_shape, condition_shape):
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

    def __init__(self, hidden_channels, **kwargs):
        super().__init__(**kwargs)
        self.hidden_channels = hidden_channels

    def build(self, x_shape, condition_shape):
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

    def call(self, x, condition):
        residual = self.fusion_1(self.conv_1(x), condition)
        return x + self.fusion_2(self.conv_2(residual), condition)

    def compute_output_shape(self, x_shape, condition_shape):
        return x_shape

    def get_config(self):
        config = super().get_config()
        config.update({"hidden_channels": self.hidden_channels})
        return config


class GeneratorBlock(layers.Layer):
    """A block of the generator: resize, then `shortcut + conv(DF(conv(DF(x))))`.

    Operations on single pixels (the first fusion, the 1x1 shortcut) commute with the
    nearest resize and run before it, on the small map: the same numbers for a quarter
    of the work.

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

    def __init__(self, filters, size, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.size = size

    def build(self, x_shape, condition_shape):
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

    def call(self, x, condition):
        residual = self.conv_1(self.fusion_1(x, condition))
        residual = self.conv_2(self.fusion_2(residual, condition))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return nearest_resize(shortcut, self.size) + residual

    def compute_output_shape(self, x_shape, condition_shape):
        return (x_shape[0], self.size, self.size, self.filters)

    def get_config(self):
        config = super().get_config()
        config.update({"filters": self.filters, "size": self.size})
        return config


class DiscriminatorBlock(layers.Layer):
    """A block of Mate-D: `shortcut(x) + gamma * r(x) [+ beta * next_features]`.

    `r` is conv3x3, LeakyReLU, conv3x3, LeakyReLU without biases; `gamma` and `beta`
    start at 0. The shortcut is a 1x1 convolution where the channels change.

    Args:
        filters: int. The number of output channels.
        use_features: bool. Whether the block adds the next CLIP features.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.
        next_features: tensor of the shape of the output, where `use_features`.

    Returns:
        A tensor `(batch_size, height, width, filters)`.
    """

    def __init__(self, filters, use_features, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.use_features = use_features

    def build(self, x_shape, next_features_shape=None):
        dtype = self.dtype_policy
        hidden_shape = (*x_shape[:-1], self.filters)
        self.conv_1 = conv2d(self.filters, 3, "conv_1", use_bias=False, dtype=dtype)
        self.conv_1.build(x_shape)
        self.conv_2 = conv2d(self.filters, 3, "conv_2", use_bias=False, dtype=dtype)
        self.conv_2.build(hidden_shape)
        self.shortcut = None
        if x_shape[-1] != self.filters:
            self.shortcut = conv2d(self.filters, 1, "shortcut", dtype=dtype)
            self.shortcut.build(x_shape)
        self.gamma = self.add_weight(shape=(), initializer="zeros", name="gamma")
        if self.use_features:
            self.beta = self.add_weight(shape=(), initializer="zeros", name="beta")

    def call(self, x, next_features=None):
        residual = leaky_relu(self.conv_2(leaky_relu(self.conv_1(x))))
        x = x if self.shortcut is None else self.shortcut(x)
        x = x + self.gamma * residual
        return x + self.beta * next_features if self.use_features else x

    def compute_output_shape(self, x_shape, next_features_shape=None):
        return (*x_shape[:-1], self.filters)

    def get_config(self):
        config = super().get_config()
        config.update({"filters": self.filters, "use_features": self.use_features})
        return config
