"""The Inception network that FID is defined by, loaded from its PyTorch files.

Reference: [Rethinking the Inception Architecture for Computer Vision](
https://arxiv.org/abs/1512.00567), and for its use [GANs Trained by a Two Time-Scale
Update Rule Converge to a Local Nash Equilibrium](https://arxiv.org/abs/1706.08500).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from galip_keras.backend import Shape, Tensor

SIZE = 299
FEATURES = 2048

# Of batch normalisation.
_EPSILON = 1e-3

# The layers behind the features.
_UNUSED = ("fc.", "AuxLogits.")


def inception(
    state: dict[str, np.ndarray], is_torchvision: bool = False
) -> keras.Model:
    """Build the network up to its pooled features.

    Batch normalisation is folded into the convolution before it.

    Args:
        state: dict of NumPy arrays by their PyTorch names, such as
            `Mixed_5b.branch1x1.bn.bias`, as in the files of the FID tools and of
            torchvision.
        is_torchvision: bool. Whether the network is torchvision's. The network of 2015,
            which defines FID, pools differently: averages over 3x3 pixels leave the
            padding out, and the last block takes the maximum.

    Returns:
        A `keras.Model` from images `(batch_size, 299, 299, 3)` in [-1, 1] to features
        `(batch_size, 2048)`.

    Raises:
        ValueError: If a tensor is missing, left over or of the wrong shape.
    """
    return _Builder(state, is_torchvision).build()


class _Builder:
    def __init__(self, state: dict[str, np.ndarray], is_torchvision: bool) -> None:
        self.state = {
            name: value
            for name, value in state.items()
            if not name.startswith(_UNUSED) and not name.endswith("num_batches_tracked")
        }
        self.is_torchvision = is_torchvision
        self.convolutions: list[tuple[layers.Conv2D, str]] = []

    def build(self) -> keras.Model:
        images = keras.Input((SIZE, SIZE, 3))
        x = self.conv(images, "Conv2d_1a_3x3", 32, 3, 2)
        x = self.conv(x, "Conv2d_2a_3x3", 32, 3)
        x = self.conv(x, "Conv2d_2b_3x3", 64, 3, padding="same")
        x = self.maximum(x, 2, "valid")
        x = self.conv(x, "Conv2d_3b_1x1", 80, 1)
        x = self.conv(x, "Conv2d_4a_3x3", 192, 3)
        x = self.maximum(x, 2, "valid")
        for name, channels in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = self.block_a(x, f"Mixed_{name}", channels)
        x = self.block_b(x, "Mixed_6a")
        for name, channels in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = self.block_c(x, f"Mixed_{name}", channels)
        x = self.block_d(x, "Mixed_7a")
        x = self.block_e(x, "Mixed_7b", self.average(x))
        pooled = self.average(x) if self.is_torchvision else self.maximum(x)
        x = self.block_e(x, "Mixed_7c", pooled)
        x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
        model = keras.Model(images, x)
        for layer, name in self.convolutions:
            self.load(layer, name)
        if self.state:
            raise ValueError(
                f"the file holds {len(self.state)} tensors that Inception does not "
                f"have, such as {min(self.state)}"
            )
        return model

    def block_a(self, x: Tensor, name: str, pool_channels: int) -> Tensor:
        return self.join(
            x,
            name,
            [("branch1x1", 64, 1)],
            [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
            [
                ("branch3x3dbl_1", 64, 1),
                ("branch3x3dbl_2", 96, 3),
                ("branch3x3dbl_3", 96, 3),
            ],
            pool=self.chain(self.average(x), name, [("branch_pool", pool_channels, 1)]),
        )

    def block_b(self, x: Tensor, name: str) -> Tensor:
        return self.join(
            x,
            name,
            [("branch3x3", 384, 3, 2)],
            [
                ("branch3x3dbl_1", 64, 1),
                ("branch3x3dbl_2", 96, 3),
                ("branch3x3dbl_3", 96, 3, 2),
            ],
            pool=self.maximum(x, 2, "valid"),
        )

    def block_c(self, x: Tensor, name: str, channels: int) -> Tensor:
        return self.join(
            x,
            name,
            [("branch1x1", 192, 1)],
            [
                ("branch7x7_1", channels, 1),
                ("branch7x7_2", channels, (1, 7)),
                ("branch7x7_3", 192, (7, 1)),
            ],
            [
                ("branch7x7dbl_1", channels, 1),
                ("branch7x7dbl_2", channels, (7, 1)),
                ("branch7x7dbl_3", channels, (1, 7)),
                ("branch7x7dbl_4", channels, (7, 1)),
                ("branch7x7dbl_5", 192, (1, 7)),
            ],
            pool=self.chain(self.average(x), name, [("branch_pool", 192, 1)]),
        )

    def block_d(self, x: Tensor, name: str) -> Tensor:
        return self.join(
            x,
            name,
            [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
            [
                ("branch7x7x3_1", 192, 1),
                ("branch7x7x3_2", 192, (1, 7)),
                ("branch7x7x3_3", 192, (7, 1)),
                ("branch7x7x3_4", 192, 3, 2),
            ],
            pool=self.maximum(x, 2, "valid"),
        )

    def block_e(self, x: Tensor, name: str, pooled: Tensor) -> Tensor:
        narrow = self.chain(x, name, [("branch3x3_1", 384, 1)])
        double = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)]
        double = self.chain(x, name, double)
        forks = [
            self.chain(source, name, [(f"{branch}{half}", 384, kernel)])
            for source, branch in ((narrow, "branch3x3_2"), (double, "branch3x3dbl_3"))
            for half, kernel in (("a", (1, 3)), ("b", (3, 1)))
        ]
        pool = self.chain(pooled, name, [("branch_pool", 192, 1)])
        first = self.chain(x, name, [("branch1x1", 320, 1)])
        return layers.Concatenate()([first, *forks, pool])

    def join(
        self, x: Tensor, name: str, *branches: list[tuple], pool: Tensor
    ) -> Tensor:
        outputs = [self.chain(x, name, branch) for branch in branches]
        return layers.Concatenate()([*outputs, pool])

    def chain(self, x: Tensor, block: str, convolutions: list[tuple]) -> Tensor:
        for name, filters, kernel, *stride in convolutions:
            # Only the convolutions that stride come without padding.
            strides, padding = (stride[0], "valid") if stride else (1, "same")
            x = self.conv(x, f"{block}.{name}", filters, kernel, strides, padding)
        return x

    def conv(
        self,
        x: Tensor,
        name: str,
        filters: int,
        kernel: int | tuple[int, int],
        strides: int = 1,
        padding: str = "valid",
    ) -> Tensor:
        layer = layers.Conv2D(
            filters, kernel, strides, padding, "channels_last", activation="relu"
        )
        self.convolutions.append((layer, name))
        return layer(x)

    def average(self, x: Tensor) -> Tensor:
        return _Average(not self.is_torchvision)(x)

    def maximum(self, x: Tensor, strides: int = 1, padding: str = "same") -> Tensor:
        return layers.MaxPooling2D(3, strides, padding, "channels_last")(x)

    def load(self, layer: layers.Conv2D, name: str) -> None:
        def take(part, shape):
            value = self.state.pop(f"{name}.{part}", None)
            if value is None or value.shape != shape:
                found = (
                    "is missing" if value is None else f"has the shape {value.shape}"
                )
                raise ValueError(
                    "the file is not an Inception: "
                    f"{name}.{part} of shape {shape} {found}"
                )
            return value.astype("float64")

        height, width, channels, filters = layer.kernel.shape
        kernel = take("conv.weight", (filters, channels, height, width))
        gamma, beta, mean, variance = (
            take(f"bn.{part}", (filters,))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        layer.kernel.assign(kernel.transpose(2, 3, 1, 0) * scale)
        layer.bias.assign(beta - mean * scale)


class _Average(layers.Layer):
    """The mean of 3x3 pixels, with or without the padding around the map."""

    def __init__(self, leave_padding_out: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.leave_padding_out = leave_padding_out

    def call(self, x: Tensor) -> Tensor:
        padded = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = ops.average_pool(padded, 3, 1, "valid", "channels_last")
        if not self.leave_padding_out:
            return x
        height, width = (
            9.0 / np.array([6, *[9] * (size - 2), 6]) for size in x.shape[1:3]
        )
        # 4 of 9 pixels are inside the map in a corner, 6 at an edge.
        factors = (height[:, None] * width[None])[None, :, :, None]
        return x * ops.convert_to_tensor(factors, x.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape
