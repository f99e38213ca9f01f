"""The noise of GALIP: one seed per image, the same on every backend and runtime."""

import ctypes
import functools
import numbers
import operator
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

# Philox 4x32 with ten rounds (Salmon et al., Parallel Random Numbers: As Easy as 1, 2,
# 3, 2011), and the key with which TensorFlow scrambles a seed.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SCRAMBLE = (0x3EC8F720, 0x02461E29)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def noise(
    seeds: Sequence[int] | np.ndarray, latent_dim: int, truncation: float = 1.0
) -> np.ndarray:
    """Draw the noise of images, each from its own seed.

    Args:
        seeds: sequence of ints, from 0 to 2**63 - 1.
        latent_dim: int. Size of the noise of an image.
        truncation: float, at least 0. Factor of the noise: less than 1 trades variety
            for typical images.

    Returns:
        A float32 array `(len(seeds), latent_dim)`, standard normal for a truncation of
        1. On every backend row i is `truncation` times the numbers that
        `tf.random.stateless_normal` draws by the Philox algorithm from the pair
        (seeds[i], 0).

    Raises:
        ValueError: if `truncation` is below 0 or infinite, or a seed is out of range.

    Example:

    ```python
    galip_keras.noise([0, 1], latent_dim=100)  # (2, 100)
    ```
    """
    if not isinstance(truncation, numbers.Real) or not 0 <= truncation < float("inf"):
        raise ValueError(
            f"`truncation` must be a number of at least 0. Received: {truncation!r}"
        )
    column = np.asarray(expand_seeds(seeds, len(seeds)), "uint64")[:, None]
    zeros = np.zeros_like(column)
    mixed = _philox([column & _LOW, column >> _HALF, zeros, zeros], _SCRAMBLE)
    count = np.arange(-(-latent_dim // 4), dtype="uint64")[None]
    words = _philox([count + zeros, 0 * count + zeros, *mixed[2:]], mixed[:2])
    first, second, third, fourth = (_uniform(word) for word in words)
    drawn = [*_box_muller(first, second), *_box_muller(third, fourth)]
    rows = np.stack(drawn, -1).reshape(len(seeds), -1)[:, :latent_dim]
    return rows * np.float32(truncation)


def _uniform(word):
    """Uniform numbers in [0, 1): the lower 23 bits as the fraction of one in [1, 2)."""
    bits = (word & np.uint64(0x7FFFFF)).astype("uint32") | np.uint32(0x3F800000)
    return bits.view("float32") - np.float32(1)


def _box_muller(first, second):
    log = _float32("log")(np.maximum(first, np.float32(1e-7)))
    radius = np.sqrt(np.float32(-2) * log)
    angle = (2 * np.pi * second.astype("float64")).astype("float32")
    return _float32("sin")(angle) * radius, _float32("cos")(angle) * radius


def fresh_seed() -> int:
    """Draw a seed from the operating system, whatever libraries have seeded."""
    return secrets.randbelow(2**32)


def expand_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """Return one seed per image.

    Args:
        seed: int, or a sequence of ints, one per image. With a single seed, image i
            gets `seed + i`. None draws a seed at random.
        count: int. Number of images.

    Returns:
        A list of `count` ints.

    Raises:
        ValueError: if the number of seeds is not `count`, or a seed is no whole number
            or out of range.
    """
    if seed is None:
        seed = fresh_seed()
    is_single = np.ndim(seed) == 0
    given: Any = [seed] if is_single else seed
    try:
        seeds = [operator.index(one) for one in given]
    except TypeError as error:
        raise ValueError(
            f"A seed must be a whole number from 0 to 2**63 - 1. Received: {seed!r}"
        ) from error
    if is_single:
        seeds = [seeds[0] + i for i in range(count)]
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds were given for {count} images.")
    if min(seeds, default=0) < 0 or max(seeds, default=0) >= 2**63:
        raise ValueError(f"A seed must be from 0 to 2**63 - 1. Received: {seed}")
    return seeds


@functools.cache
def _float32(name):
    """Return a float32 function of arrays that rounds as TensorFlow's C library does.

    NumPy's functions differ by several units in the last place, which can change a
    pixel.
    """
    try:
        function = getattr(ctypes.CDLL(None), f"{name}f")
    except (AttributeError, OSError, TypeError):
        # Windows. Rounded from double precision, nearly all values are the same.
        return lambda x: getattr(np, name)(x.astype("float64")).astype("float32")
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return lambda x: np.reshape(
        np.fromiter(map(function, x.ravel().tolist()), "float32", x.size), x.shape
    )


def _philox(counter, key):
    counter = [np.asarray(word, "uint64") for word in counter]
    key = [np.asarray(word, "uint64") for word in key]
    for _ in range(_ROUNDS):
        first, second = (c * np.uint64(m) for c, m in zip(counter[::2], _MULTIPLIERS))
        counter = [
            (second >> _HALF) ^ counter[1] ^ key[0],
            second & _LOW,
            (first >> _HALF) ^ counter[3] ^ key[1],
            first & _LOW,
        ]
        key = [(k + np.uint64(i)) & _LOW for k, i in zip(key, _INCREMENTS)]
    return counter
