"""The latent space: points in it, paths between them, sums and mixtures of prompts.

A `Point` is what an image is made of: noise and a text embedding. It comes from a
prompt and a seed, or from the inversion of a given image, and `draw` makes its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galip_keras.models.noise import noise


class Point(NamedTuple):
    """What an image is made of.

    Attributes:
        noise: float32 array `(latent_dim,)`.
        text_embedding: float32 array `(embedding_dim,)`.
    """

    noise: np.ndarray
    text_embedding: np.ndarray


def point(model: Any, prompt: str, seed: int, truncation: float = 1.0) -> Point:
    """The `Point` of the image that `model.generate` makes of a prompt and a seed.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        prompt: string.
        seed: int.
        truncation: float, at least 0. Factor of the noise.
    """
    latent = noise([seed], model.latent_dim, truncation)[0]
    return Point(latent, model.embed([prompt])[0])


def draw(model: Any, points: Sequence[Point]) -> np.ndarray:
    """The images of points, a uint8 array `(n, image_size, image_size, 3)`.

    One at a time, since rounding can depend on what else is in a batch.
    """
    return np.concatenate(
        [model.decode(p.noise[None], p.text_embedding[None]) for p in points]
    )


def save(path: str | Path, found: Point) -> None:
    """Write a `Point` to a `.npz` file."""
    np.savez(path, **found._asdict())


def load(path: str | Path, model: Any) -> Point:
    """Read a `Point` from a `.npz` file.

    Args:
        path: path.
        model: the `galip_keras.GALIPTextToImage` that is to draw it.

    Raises:
        ValueError: if the file holds something else, or a point of another model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            found = Point(*(file[name].astype("float32") for name in Point._fields))
    except (ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
        raise ValueError(f"{path} holds no point of a latent space") from error
    generator = model.backbone.generator
    shapes = [(generator.latent_dim,), (generator.clip.embedding_dim,)]
    if [x.shape for x in found] != shapes or not all(
        np.isfinite(x).all() for x in found
    ):
        raise ValueError(f"{path} holds a point of another model")
    return found


def combine(
    model: Any,
    prompts: Sequence[str],
    plus: Sequence[str] = (),
    minus: Sequence[str] = (),
) -> np.ndarray:
    """Add and subtract prompts: "a bird" + "red" - "blue".

    Each sum is scaled to the length of the embedding it began with, since the generator
    has seen embeddings of about that length only.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        prompts: sequence of strings.
        plus: sequence of strings. Added to each prompt.
        minus: sequence of strings. Subtracted from each prompt.

    Returns:
        A float32 array `(len(prompts), embedding_dim)`.
    """
    base = model.embed(list(prompts))
    change = np.zeros_like(base[:1])
    for texts, sign in ((plus, 1), (minus, -1)):
        if texts:
            change += sign * model.embed(list(texts)).sum(axis=0)
    total = base + change
    lengths = [np.linalg.norm(x, axis=-1, keepdims=True) for x in (base, total)]
    return total * (lengths[0] / np.maximum(lengths[1], 1e-6))


def slerp(a: np.ndarray, b: np.ndarray, weight: float | np.floating) -> np.ndarray:
    """A vector on the arc from `a` to `b`, with a length between theirs.

    A straight line would be too short in the middle, and the generator has seen noise
    of about one length only.

    Args:
        a: array `(dim,)`.
        b: array `(dim,)`.
        weight: float in [0, 1]. 0 gives `a`.
    """
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    cosine = np.dot(a, b) / max(lengths[0] * lengths[1], 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-4 or min(lengths) == 0:
        return (1 - weight) * a + weight * b
    parts = np.sin((1 - weight) * angle), np.sin(weight * angle)
    arc = (parts[0] * a / lengths[0] + parts[1] * b / lengths[1]) / np.sin(angle)
    return arc * ((1 - weight) * lengths[0] + weight * lengths[1])


def interpolate(points: Sequence[Point], frames: int) -> list[Point]:
    """A path through points: noise on arcs, text embeddings on straight lines.

    Args:
        points: sequence of at least two `Point`.
        frames: int, at least 2. Points on the path, both ends included.

    Returns:
        A list of `Point`.
    """
    if len(points) < 2 or frames < 2:
        raise ValueError("A path takes at least two points and two frames.")
    found = []
    for place in np.linspace(0, len(points) - 1, frames):
        i = min(int(place), len(points) - 2)
        (noise_a, text_a), (noise_b, text_b) = points[i : i + 2]
        w = np.float32(place - i)
        found.append(Point(slerp(noise_a, noise_b, w), (1 - w) * text_a + w * text_b))
    return found


def mix(
    model: Any, text_embedding: np.ndarray, other: np.ndarray, parts: Sequence[int]
) -> np.ndarray:
    """Give some parts of the generator the text embedding of another prompt.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        text_embedding: array `(embedding_dim,)`. For all other parts.
        other: array `(embedding_dim,)`. For `parts`.
        parts: sequence of ints. 0 is the bridge feature with the prompts, `i + 1`
            generator block `i`.

    Returns:
        An array `(num_conditions, embedding_dim)`, for `model.decode`.

    Raises:
        ValueError: if the generator has no such part.
    """
    count = model.backbone.generator.num_conditions
    if not set(parts) <= set(range(count)):
        raise ValueError(
            f"This generator has blocks 0 to {count - 2}, and the bridge. Received: "
            f"{', '.join('bridge' if p == 0 else str(p - 1) for p in parts)}"
        )
    mixed = np.repeat(text_embedding[None], count, axis=0)
    mixed[list(parts)] = other
    return mixed
