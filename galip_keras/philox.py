"""The noise of `galip_keras.noise`, where there is no TensorFlow."""

import numpy as np

# Philox 4x32 with ten rounds, of Salmon et al., Parallel Random Numbers: As Easy as 1,
# 2, 3 (2011), and the key by which TensorFlow scrambles a seed.
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SCRAMBLE = (0x3EC8F720, 0x02461E29)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def noise(seeds, latent_dim):
    """Noise of seeds, as `tf.random.stateless_normal` with the Philox algorithm.

    Args:
        seeds: sequence of ints, from 0 to 2**63 - 1.
        latent_dim: int. Size of the noise of an image.

    Returns:
        A float32 array `(len(seeds), latent_dim)`, standard normal. It differs from
        TensorFlow's by the rounding of logarithm and sine, less than 1e-5.
    """
    seeds = np.asarray(seeds, "uint64")[:, None]
    zeros = np.zeros_like(seeds)
    mixed = _philox([seeds & _LOW, seeds >> _HALF, zeros, zeros], _SCRAMBLE)
    count = np.arange(-(-latent_dim // 4), dtype="uint64")[None]
    words = _philox([count + zeros, 0 * count + zeros, *mixed[2:]], mixed[:2])
    # The lower 23 bits as the fraction of a number in [1, 2).
    uniform = [
        ((word & np.uint64(0x7FFFFF)).astype("uint32") | np.uint32(0x3F800000)).view(
            "float32"
        )
        - np.float32(1)
        for word in words
    ]
    pairs = []
    # Box-Muller.
    for first, second in (uniform[:2], uniform[2:]):
        radius = np.sqrt(-2 * np.log(np.maximum(first, np.float32(1e-7))))
        angle = np.float32(2 * np.pi) * second
        pairs += [np.sin(angle) * radius, np.cos(angle) * radius]
    return np.stack(pairs, -1).reshape(len(seeds), -1)[:, :latent_dim]


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
