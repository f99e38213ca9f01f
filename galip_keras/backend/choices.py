"""What is fastest where: the one place that chooses between forms of the same numbers.

All forms give the same images to rounding. `benchmarks/README.md` has the figures
behind the choices, and `benchmarks/sampling.py` measures them anew.

| where | dtype | compiled by XLA |
|---|---|---|
| JAX | any | always |
| TensorFlow, GPU | any | always |
| TensorFlow, CPU | bfloat16, if the CPU has units for it | never |
| TensorFlow, CPU | otherwise | large models |
| PyTorch | any | never: `torch.compile` cannot differentiate twice, as training does |

On a CPU XLA computes in float32 whatever the dtype is, while oneDNN, which runs what is
not compiled, uses the units for bfloat16. In float32 XLA makes large models faster by a
tenth. It is no faster for small ones, which would wait a minute for it.

A nearest resize that a 3x3 convolution follows has these forms:

- *products*, where XLA compiles: nine matrix products on the small map, a quarter of
  the multiplications of the plain form. XLA fuses the many steps between them. Without
  it these steps take as long as the products save.
- *transposed*, elsewhere: one transposed convolution by a 4x4 kernel, with 4/9 of the
  multiplications and nothing in between. oneDNN and cuDNN have it as one call, while
  XLA runs it slowly on a CPU. It takes a doubling: other sizes are *direct*.
- *direct*: a resize and a convolution.
"""

from typing import NamedTuple

PRODUCTS = "products"
TRANSPOSED = "transposed"
DIRECT = "direct"

# On a CPU, TensorFlow compiles a model of more parameters.
_LARGE = 1e7

# From this factor on, a resized map has enough copies of a pixel to save products.
_WORTHWHILE = 1.5


class Place(NamedTuple):
    """Where a model runs.

    Attributes:
        backend: string. Keras' name of the backend.
        is_cpu: bool. Whether the CPU is the only device.
        has_bfloat16: bool. Whether the device has units that multiply in bfloat16.
    """

    backend: str
    is_cpu: bool
    has_bfloat16: bool


def is_bfloat16_fast(place: Place) -> bool:
    """Whether a model is faster in bfloat16 than in float32."""
    return place.has_bfloat16 and not (place.backend == "jax" and place.is_cpu)


def compiles(
    place: Place, dtype: str, num_parameters: int, is_varied: bool = False
) -> bool:
    """Whether XLA saves more time than compiling takes.

    Args:
        place: a `Place`.
        dtype: string. What the model computes in.
        num_parameters: int. The size of the model.
        is_varied: bool. Whether its inputs come in many shapes, as texts do. XLA
            compiles a model for each.
    """
    if place.backend == "torch":
        return False
    if place.backend == "jax":
        return True
    if is_varied:
        return False
    if not place.is_cpu:
        return True
    if dtype == "bfloat16" and is_bfloat16_fast(place):
        return False
    return num_parameters > _LARGE


def resize_form(is_compiled: bool, old_size: int, size: int) -> str:
    """The form of a nearest resize that a 3x3 convolution follows.

    Args:
        is_compiled: bool. Whether XLA compiles it.
        old_size: int. Height and width of the map.
        size: int. Height and width of the resized map.

    Returns:
        `PRODUCTS`, `TRANSPOSED` or `DIRECT`.
    """
    if is_compiled:
        return PRODUCTS if size >= _WORTHWHILE * old_size else DIRECT
    return TRANSPOSED if size == 2 * old_size else DIRECT
