"""How close a faster way to make images stays to the exact one."""

from __future__ import annotations

from typing import Any

import numpy as np

# Short and long, with entities, accents and nothing at all.
PROMPTS = (
    "a red bird",
    "a small blue bird with yellow wings, flying in the sky",
    "an owl's nest, 12 caf\u00e9s",
    "A castle by the sea &amp; a boat!",
    "a bowl of fruit on a wooden table",
    "two dogs",
    "",
    "a very long sentence " * 20,
)

# Decibels from which on people see no difference.
FAITHFUL = 40.0


def psnr(images: np.ndarray, exact: np.ndarray) -> float:
    """The peak signal-to-noise ratio of uint8 images, in decibels."""
    error = np.mean((images.astype("float64") - exact.astype("float64")) ** 2)
    # It would be infinite for identical images.
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def is_faithful(model: Any, exact: Any) -> bool:
    """Whether a model draws the images of another one, as far as people can see.

    Args:
        model: anything with the `generate` of a `galip_keras.GALIPTextToImage`.
        exact: the same. Both draw the first of `PROMPTS`.

    Returns:
        Whether the PSNR of every image is at least `FAITHFUL`.
    """
    prompts = list(PROMPTS[:4])
    seeds = list(range(len(prompts)))
    drawn, expected = (x.generate(prompts, seed=seeds) for x in (model, exact))
    return all(psnr(*pair) >= FAITHFUL for pair in zip(drawn, expected))
