"""The building blocks of Mate-G and Mate-D. All feature maps are channels last.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), figures 3 and 4.
"""

import math

import keras
from keras import layers, ops

LEAKY_SLOPE = 0.2


def fan_in_uniform():
    """What the paper's networks start from: uniform within 1 / sqrt(fan_in).

    A new one for each layer: an initializer has drawn its seed once and for all.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def leaky_relu(x):
    return ops.leaky_relu(x, negative_slope=LEAKY_SLOPE)


def conv2d(filters, kernel_size, name, dtype=None):
    """A `keras.layers.Conv2D` as all networks here use it."""
    return layers.Conv2D(
        filters,
        kernel_size,
        padding="same",
        data_format="channels_last",
        kernel_initializer=fan_in_uniform(),
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

    Most neighbours in the large map are copies of one pixel, so most of a plain
    convolution's work is done several times. Along one axis, with taps `k0, k1, k2`,
    steps `d[j] = x[j] - x[j - 1]` and zeros around `x`, the output at a copy of `x[j]`
    is

        (k0 + k1 + k2) x[j]  - k0 d[j]       if its left neighbour is no copy of x[j]
                             + k2 d[j + 1]   if its right neighbour is none

    That is three products a pixel of the *small* map: nine in two dimensions, all of
    them matrix products, where the plain way has nine a pixel of the large map. After
    a doubling this is a quarter of the work for the same numbers.

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
            kernel_initializer=fan_in_uniform(),
            **kwargs,
        )
        self.size = size

    def call(self, x):
        if self.size < 1.5 * x.shape[1]:
            # Too few copies to be worth it.
            return super().call(nearest_resize(x, self.size))
        # Along an axis: the kernels of the flat, the left and the right terms.
        terms = ops.convert_to_tensor(
            [[1, 1, 1], [-1, 0, 0], [0, 0, 1]], dtype=self.compute_dtype
        )
        kernels = ops.einsum("ar,bs,rscd->abcd", terms, terms, self.kernel)

        def product(x, rows, columns):
            pairs = [kernels[a, b] for a in rows for b in columns]
            products = ops.matmul(x, ops.concatenate(pairs, axis=-1))
            return ops.split(products, len(pairs), axis=-1)

        row_steps = _steps(x, axis=1)
        (flat,) = product(x, [0], [0])
        top, bottom = product(row_steps, [1, 2], [0])
        left, right = product(_steps(x, axis=2), [0], [1, 2])
        corners = product(_steps(row_steps, axis=2), [1, 2], [1, 2])
        # Columns first, for the three kinds of rows; then the rows.
        flat = _spread(flat, left, right, self.size, axis=2)
        top = _spread(top, *corners[:2], self.size, axis=2)
        bottom = _spread(bottom, *corners[2:], self.size, axis=2)
        return _spread(flat, top, bottom, self.size, axis=1) + self.bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, self.filters)

    def get_config(self):
        config = layers.Layer.get_config(self)
        config.update({"filters": self.filters, "size": self.size})
        return config


def _steps(x, axis):
    """Differences of neighbours along an axis, with zeros around."""
    padding = [[0, 0]] * 4
    padding[axis] = [1, 1]
    x = ops.pad(x, padding)
    length = x.shape[axis]
    return _slice(x, axis, 1, length) - _slice(x, axis, 0, length - 1)


def _spread(flat, before, after, size, axis):
    """Lays the terms of `ResizeConv2D` out along an axis of the large map."""
    old_size = flat.shape[axis]
    # The pattern repeats: of 128 to 224, every 4 old pixels make 7 new ones.
    period = size // math.gcd(size, old_size)
    stride = old_size * period // size
    source = [i * old_size // size for i in range(-1, period + 1)]

    def take(x, start):
        return _slice(x, axis, start, start + old_size - stride + 1, stride)

    phases = []
    for left, here, right in zip(source, source[1:], source[2:]):
        phase = take(flat, here)
        if left != here:
            phase = phase + take(before, here)
        if right != here:
            phase = phase + take(after, right)
        phases.append(phase)
    shape = [-1, *flat.shape[1:]]
    shape[axis] = size
    return ops.reshape(ops.stack(phases, axis=axis + 1), shape)


def _slice(x, axis, start, stop, step=1):
    index = [slice(None)] * 4
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


class PatchConv2D(layers.Conv2D):
    """A convolution, without bias, that can be differentiated twice in any precision.

    The penalty needs that, and in half precision PyTorch's convolution cannot on a CPU.
    There the layer is one matrix product over the patches, which are few on the small
    maps of a CLIP.

    Args:
        filters: int. The number of output channels.
        kernel_size: int. Height and width of the kernel.
        padding: `"same"`, for odd kernels, or `"valid"`.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.

    Returns:
        A tensor `(batch_size, new_height, new_width, filters)`.
    """

    def __init__(self, filters, kernel_size, padding="same", **kwargs):
        super().__init__(
            filters,
            kernel_size,
            padding=padding,
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=fan_in_uniform(),
            **kwargs,
        )

    def call(self, x):
        if self.compute_dtype == "float32":
            return super().call(x)
        size = self.kernel_size[0]
        if self.padding == "same":
            x = ops.pad(x, [[0, 0], [size // 2] * 2, [size // 2] * 2, [0, 0]])
        height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
        patches = [
            x[:, i : i + height, j : j + width]
            for i in range(size)
            for j in range(size)
        ]
        kernel = ops.reshape(self.kernel, (-1, self.filters))
        return ops.matmul(ops.concatenate(patches, axis=-1), kernel)

    def get_config(self):
        config = layers.Layer.get_config(self)
        config.update(
            {
                "filters": self.filters,
                "kernel_size": self.kernel_size[0],
                "padding": self.padding,
            }
        )
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

    `r` is conv3x3, LeakyReLU, conv3x3, LeakyReLU without biases. The shortcut is a 1x1
    convolution where the channels change.

    Args:
        filters: int. The number of output channels.
        use_features: bool. Whether the block adds the next CLIP features.
        initial_scale: float. What `gamma` and `beta` start at.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, width, channels)`.
        next_features: tensor of the shape of the output, where `use_features`.

    Returns:
        A tensor `(batch_size, height, width, filters)`.
    """

    def __init__(self, filters, use_features, initial_scale=0.0, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.use_features = use_features
        self.initial_scale = initial_scale

    def build(self, x_shape, next_features_shape=None):
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

    def call(self, x, next_features=None):
        residual = leaky_relu(self.conv_2(leaky_relu(self.conv_1(x))))
        x = x if self.shortcut is None else self.shortcut(x)
        x = x + self.gamma * residual
        return x + self.beta * next_features if self.use_features else x

    def compute_output_shape(self, x_shape, next_features_shape=None):
        return (*x_shape[:-1], self.filters)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "filters": self.filters,
                "use_features": self.use_features,
                "initial_scale": self.initial_scale,
            }
        )
        return config
