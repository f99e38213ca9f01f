"""The latent space: ways between pictures, sums of sentences, mixtures, inversion.

What makes a picture is a `Point`: noise and a sentence embedding. Points are made from
sentences and seeds, or found for a given picture, and `GALIPTextToImage.decode` draws
them.
"""

from typing import NamedTuple

import numpy as np

from galip_keras.models.noise import noise


class Point(NamedTuple):
    """What makes a picture.

    noise: float32 array `(latent_dim,)`.
    text_embedding: float32 array `(embedding_dim,)`.
    """

    noise: np.ndarray
    text_embedding: np.ndarray


def point(model, prompt, seed, truncation=1.0):
    """The `Point` of the picture that `model.generate` makes of a prompt and a seed."""
    latent = noise([seed], model.latent_dim, truncation)[0]
    return Point(latent, model.embed([prompt])[0])


def save(path, found):
    """Writes a `Point` to a `.npz` file."""
    np.savez(path, **found._asdict())


def load(path, model):
    """Reads a `Point` from a `.npz` file.

    Raises:
        ValueError: where the file holds something else, or a point of another model.
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


def combine(model, prompts, plus=(), minus=()):
    """Sums of sentences: "a bird" + "red" - "blue".

    A sum is as long as the embedding that it began with, which is about how long the
    generator knows them.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        prompts: list of strings.
        plus: sequence of strings. What is added to each.
        minus: sequence of strings. What is subtracted.

    Returns:
        A float32 array `(len(prompts), embedding_dim)`.
    """
    base = model.embed(list(prompts))
    change = np.zeros_like(base[:1])
    for sentences, sign in ((plus, 1), (minus, -1)):
        if sentences:
            change += sign * model.embed(list(sentences)).sum(axis=0)
    total = base + change
    lengths = [np.linalg.norm(x, axis=-1, keepdims=True) for x in (base, total)]
    return total * (lengths[0] / np.maximum(lengths[1], 1e-6))


def slerp(a, b, weight):
    """A vector on the arc from `a` to `b`: its length stays between theirs.

    On the straight line it would be too short in the middle, and a generator knows
    noise of one length only.

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


def interpolate(points, frames):
    """The way through some points: noise on arcs, sentences on straight lines.

    Args:
        points: list of at least two `Point`.
        frames: int, at least 2. How many points the way has, both ends included.

    Returns:
        A list of `Point`.
    """
    if len(points) < 2 or frames < 2:
        raise ValueError("A way takes two points, and two frames.")
    found = []
    for place in np.linspace(0, len(points) - 1, frames):
        i = min(int(place), len(points) - 2)
        (noise_a, text_a), (noise_b, text_b) = points[i : i + 2]
        w = np.float32(place - i)
        found.append(Point(slerp(noise_a, noise_b, w), (1 - w) * text_a + w * text_b))
    return found


def mix(model, text_embedding, other, parts):
    """A sentence embedding for each part of the generator, some of another sentence.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        text_embedding: array `(embedding_dim,)`.
        other: array `(embedding_dim,)`. That of `parts`.
        parts: sequence of ints. 0 is the bridge feature with the prompts, `i + 1`
            generator block `i`.

    Returns:
        An array `(num_conditions, embedding_dim)`, for `model.decode`.

    Raises:
        ValueError: where the generator has no such part.
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
