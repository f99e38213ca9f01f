"""The latent space: ways between pictures, sums of sentences, mixtures, inversion.

What makes a picture is a `Point`: noise and a sentence embedding. Points are made from
sentences and seeds, or found for a given picture, and `GALIPTextToImage.decode` draws
them.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from galip_keras import backend, losses
from galip_keras.gan import adam, frozen_twin
from galip_keras.text_to_image import noise

# Candidates among which inversion looks for a place to begin.
_STARTS = 32

# How much in the loss of an inversion a change of CLIP's opinion, and of the length of
# the noise, counts beside the squared error of pixels in [-1, 1].
_SIMILARITY_WEIGHT = 0.1
_LENGTH_WEIGHT = 0.1


class Point(NamedTuple):
    """What makes a picture.

    noise: float32 array `(latent_dim,)`.
    text_embedding: float32 array `(embedding_dim,)`.
    """

    noise: np.ndarray
    text_embedding: np.ndarray


def point(model, prompt, seed, truncation=1.0):
    """The `Point` of the picture that `model.generate` makes of a prompt and a seed."""
    latent = np.asarray(noise([seed], model.latent_dim))[0]
    return Point(latent * np.float32(truncation), model.embed([prompt])[0])


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


class Inversion(NamedTuple):
    """What `invert` found.

    point: the `Point`.
    image: uint8 array `(image_size, image_size, 3)`, what is drawn of it.
    error: float. Root mean square of what pixels differ by, in grey levels of 255.
    similarity: float. Cosine of both pictures' embeddings by the model's CLIP.
    start_error: float. `error` before the descent, of the best of some seeds.
    """

    point: Point
    image: np.ndarray
    error: float
    similarity: float
    start_error: float


def invert(model, image, prompt="", steps=300, learning_rate=0.05, seed=0):
    """Looks for the point of a given picture, by gradient descent through it all.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        image: uint8 array `(image_size, image_size, 3)`.
        prompt: string. Where the sentence embedding begins: what the picture shows.
        steps: int. Steps of Adam.
        learning_rate: float. It falls to 0.
        seed: int. The first one of those whose noise is tried for a beginning.

    Returns:
        An `Inversion`.
    """
    generator = model.backbone.generator
    target = np.asarray(image, "float32") / 127.5 - 1.0
    text = model.embed([prompt])
    starts = np.asarray(noise(range(seed, seed + _STARTS), generator.latent_dim))
    drawn = np.concatenate([model.decode(z[None], text) for z in starts])
    errors = [_error(picture, image) for picture in drawn]
    best = int(np.argmin(errors))
    descent = _Descent(frozen_twin(generator), starts[best][None], text)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1))
    jit_compile = backend.jit_pays(generator, steps)
    descent.compile(optimizer=adam(schedule), jit_compile=jit_compile)
    if steps:
        batches = ((target[None],) for _ in range(steps))
        descent.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
    values = [ops.convert_to_numpy(x)[0] for x in (descent.noise, descent.text)]
    similarity = float(ops.convert_to_numpy(descent.similarity(target[None])))
    found = Point(*values)
    picture = model.decode(found.noise[None], found.text_embedding[None])[0]
    return Inversion(found, picture, _error(picture, image), similarity, errors[best])


def _error(picture, other):
    difference = np.asarray(picture, "float64") - np.asarray(other, "float64")
    return float(np.sqrt(np.mean(difference**2)))


class _Descent(keras.Model):
    """Noise and sentence as weights, which `fit` moves towards a picture."""

    def __init__(self, generator, noise, text):
        super().__init__()
        self.generator = generator
        self.noise, self.text = (
            self.add_weight(
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: ops.cast(value, dtype),
                name=name,
            )
            for name, value in (("noise", noise), ("text", text))
        )
        self.tracker = keras.metrics.Mean(name="loss")
        self.built = True

    def draw(self):
        # The sums are tensors, also where a weight is none.
        return self.generator(self.noise + 0.0, self.text + 0.0)

    def similarity(self, images):
        """How alike the picture and another one are to CLIP."""
        return self._similarity(self.draw(), images)

    def _similarity(self, fake, images):
        clip = self.generator.clip
        embeddings = [clip.extract_features_and_embed(x)[1] for x in (fake, images)]
        return losses.clip_similarity(*embeddings)

    def train_step(self, *args):
        return backend.run_step(self, self._train_step, *args)

    def _train_step(self, data):
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)

        def loss():
            fake = self.draw()
            error = ops.mean(ops.square(ops.clip(fake, -1, 1) - images))
            change = 1 - self._similarity(fake, images)
            length = ops.square(ops.mean(ops.square(self.noise)) - 1)
            total = error + losses.range_penalty(fake)
            total += _SIMILARITY_WEIGHT * change + _LENGTH_WEIGHT * length
            return total, ()

        variables = self.trainable_variables
        (value, _), gradients = backend.value_and_gradient(loss, variables)
        backend.apply(self.optimizer, gradients, variables)
        self.tracker.update_state(value)
        return {"loss": self.tracker.result()}
