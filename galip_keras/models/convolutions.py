"""Convolutions that do without most multiplications of the naive graph."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from galip_keras import backend
from galip_keras.backend import Shape, Tensor


def fan_in_uniform() -> keras.initializers.Initializer:
    """The paper's initializer: uniform within 1 / sqrt(fan_in).

    Each layer needs a new one, since an initializer draws its seed only once.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


class Conv2D(layers.Conv2D):
    """A `keras.layers.Conv2D` with stride 1 on maps that are channels last."""

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        backend.lay_out(self.kernel)

    def call(self, x: Tensor) -> Tensor:
        # As tensors they have the dtype of the computation.
        kernel = ops.convert_to_tensor(self.kernel)
        bias = ops.convert_to_tensor(self.bias) if self.use_bias else None
        return backend.conv2d(x, kernel, bias, self.padding)


def conv2d(
    filters: int,
    kernel_size: int,
    name: str,
    dtype: str | keras.DTypePolicy | None = None,
) -> Conv2D:
    """A convolution with the settings that all networks share."""
    return Conv2D(
        filters,
        kernel_size,
        padding="same",
        data_format="channels_last",
        kernel_initializer=fan_in_uniform(),
        dtype=dtype,
        name=name,
    )


def nearest_resize(images: Tensor, size: int) -> Tensor:
    """Resize square maps by nearest neighbour, source index `floor(i * in / out)`.

    This is PyTorch's rule, on which the paper's weights depend. The backends' own
    "nearest" modes differ from it and from each other, hence the explicit gather.

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
    index = np.arange(size) * old_size // size
    # One gather of pixels reads and writes less than one of rows and one of columns.
    pixels = (index[:, None] * old_size + index).ravel()
    channels = images.shape[-1]
    images = ops.reshape(images, (-1, old_size**2, channels))
    images = ops.take(images, pixels, axis=1)
    return ops.reshape(images, (-1, size, size, channels))


class ResizeConv2D(Conv2D):
    """Nearest resize to a size, then a 3x3 convolution, as one layer.

    Most neighbours in the large map are copies of one pixel, so a plain convolution
    does most of its work several times. There are two ways around it, for the same
    numbers; `galip_keras.backend.choices` says which is fastest where.

    *Products*: along one axis, with taps `k0, k1, k2`, steps `d[j] = x[j] - x[j - 1]`
    and zeros around `x`, the output at a copy of `x[j]` is

        (k0 + k1 + k2) x[j]  - k0 d[j]       if its left neighbour is no copy of x[j]
                             + k2 d[j + 1]   if its right neighbour is no copy of it

    These are three products per pixel of the *small* map, or nine matrix products in
    two dimensions. A plain convolution takes nine products per pixel of the large map.
    After a doubling, this is a quarter of the work.

    *Transposed*: a doubling is a transposed convolution by a 2x2 kernel of ones. With
    the 3x3 convolution it makes a transposed convolution by a 4x4 kernel: sixteen
    products per pixel of the small map, 4/9 of the work.

    Args:
        filters: int. The number of output channels.
        size: int. Height and width after the resize.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Call arguments:
        x: tensor `(batch_size, height, height, channels)`.

    Returns:
        A tensor `(batch_size, size, size, filters)`.
    """

    def __init__(self, filters: int, size: int, **kwargs: Any) -> None:
        super().__init__(
            filters,
            3,
            padding="same",
            data_format="channels_last",
            kernel_initializer=fan_in_uniform(),
            **kwargs,
        )
        self.size = size

    def build(self, input_shape: Shape) -> None:
        layers.Conv2D.build(self, input_shape)
        if self._form(input_shape) == backend.DIRECT:
            backend.lay_out(self.kernel)

    def _form(self, shape):
        return backend.resize_form(shape[1], self.size)

    def call(self, x: Tensor) -> Tensor:
        form = self._form(x.shape)
        if form == backend.DIRECT:
            return super().call(nearest_resize(x, self.size))
        kernel, bias = map(ops.convert_to_tensor, (self.kernel, self.bias))
        if form == backend.TRANSPOSED:
            return backend.double_conv2d(x, kernel, bias)
        return self._multiply(x, kernel) + bias

    def _multiply(self, x, kernel):
        kernels = [_terms(row) for row in _terms(kernel)]

        def product(x, rows, columns):
            pairs = [kernels[a][b] for a in rows for b in columns]
            products = ops.matmul(x, ops.concatenate(pairs, axis=-1))
            return ops.split(products, len(pairs), axis=-1)

        row_steps = _steps(x, axis=1)
        (flat,) = product(x, [0], [0])
        top, bottom = product(row_steps, [1, 2], [0])
        left, right = product(_steps(x, axis=2), [0], [1, 2])
        top_left, top_right, bottom_left, bottom_right = product(
            _steps(row_steps, axis=2), [1, 2], [1, 2]
        )
        # Columns first, for the three kinds of rows; then the rows.
        flat = _spread(flat, left, right, self.size, axis=2)
        top = _spread(top, top_left, top_right, self.size, axis=2)
        bottom = _spread(bottom, bottom_left, bottom_right, self.size, axis=2)
        return _spread(flat, top, bottom, self.size, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.size, self.size, self.filters)

    def get_config(self) -> dict[str, Any]:
        config = layers.Layer.get_config(self)
        config.update({"filters": self.filters, "size": self.size})
        return config


def _terms(kernel):
    """Along the first axis: the kernels of the flat, the left and the right terms."""
    return kernel[0] + kernel[1] + kernel[2], -kernel[0], kernel[2]


def _steps(x, axis):
    """Differences of neighbours along an axis, with zeros around."""
    padding = [[0, 0]] * 4
    padding[axis] = [1, 1]
    x = ops.pad(x, padding)
    length = x.shape[axis]
    return _slice(x, axis, 1, length) - _slice(x, axis, 0, length - 1)


def _spread(flat, before, after, size, axis):
    """Lay out the terms of `ResizeConv2D` along an axis of the large map."""
    old_size = flat.shape[axis]
    # The pattern repeats: from 128 to 224, every 4 old pixels become 7 new ones.
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


class PatchConv2D(Conv2D):
    """A convolution without bias that can be differentiated twice in any precision.

    The gradient penalty needs this.

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

    def __init__(
        self, filters: int, kernel_size: int, padding: str = "same", **kwargs: Any
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            padding=padding,
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=fan_in_uniform(),
            **kwargs,
        )

    def call(self, x: Tensor) -> Tensor:
        kernel = ops.convert_to_tensor(self.kernel)
        return backend.patch_conv2d(x, kernel, self.padding)

    def get_config(self) -> dict[str, Any]:
        config = layers.Layer.get_config(self)
        config.update(
            {
                "filters": self.filters,
                "kernel_size": self.kernel_size[0],
                "padding": self.padding,
            }
        )
        return config
