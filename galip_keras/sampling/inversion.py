"""The noise and the text embedding of a given image, by gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from galip_keras import backend
from galip_keras.backend import Tensor
from galip_keras.models import losses
from galip_keras.models.average import clone_frozen
from galip_keras.models.noise import noise
from galip_keras.models.optimizers import adam
from galip_keras.sampling.latent import Point, draw

# Seeds among which the descent chooses its start.
_STARTS = 32

# Weights in the loss, beside the squared error of pixels in [-1, 1]: of the distance to
# CLIP's embedding of the image, and of the change in length of the noise.
_SIMILARITY_WEIGHT = 0.1
_LENGTH_WEIGHT = 0.1


class Inversion(NamedTuple):
    """What `invert` found.

    Attributes:
        point: the `galip_keras.sampling.latent.Point`.
        image: uint8 array `(image_size, image_size, 3)`. The image of that point.
        error: float. Root mean square difference of pixels, in grey levels of 255.
        similarity: float. Cosine of the embeddings of both images by the model's CLIP.
        start_error: float. `error` before the descent, of the best seed.
    """

    point: Point
    image: np.ndarray
    error: float
    similarity: float
    start_error: float


def invert(
    model: Any,
    image: np.ndarray,
    prompt: str = "",
    steps: int = 300,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> Inversion:
    """Find the point whose image is closest to a given one.

    Args:
        model: a `galip_keras.GALIPTextToImage`.
        image: uint8 array `(image_size, image_size, 3)`.
        prompt: string. What the image shows, to begin with.
        steps: int. Steps of Adam.
        learning_rate: float. The initial rate; it falls to 0.
        seed: int. The first of the seeds among which the start is chosen.

    Returns:
        An `Inversion`.
    """
    generator = model.backbone.generator
    target = np.asarray(image, "float32") / 127.5 - 1.0
    text = model.embed([prompt])
    starts = noise(range(seed, seed + _STARTS), generator.latent_dim)
    drawn = np.concatenate([model.decode(z[None], text) for z in starts])
    errors = [_error(candidate, image) for candidate in drawn]
    best = int(np.argmin(errors))
    descent = _Descent(clone_frozen(generator), starts[best][None], text)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1))
    jit_compile = backend.should_jit(generator)
    descent.compile(optimizer=adam(schedule), jit_compile=jit_compile)
    if steps:
        batches = ((target[None],) for _ in range(steps))
        descent.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
    values = [ops.convert_to_numpy(x)[0] for x in (descent.noise, descent.text)]
    similarity = float(ops.convert_to_numpy(descent.similarity(target[None])))
    found = Point(*values)
    (result,) = draw(model, [found])
    return Inversion(found, result, _error(result, image), similarity, errors[best])


def _error(image: np.ndarray, other: np.ndarray) -> float:
    difference = np.asarray(image, "float64") - np.asarray(other, "float64")
    return float(np.sqrt(np.mean(difference**2)))


class _Descent(keras.Model):
    """Noise and text embedding as weights, which `fit` moves towards an image."""

    def __init__(
        self, generator: keras.Model, noise: np.ndarray, text: np.ndarray
    ) -> None:
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

    def draw(self) -> Tensor:
        # The sums turn weights into tensors.
        return self.generator(self.noise + 0.0, self.text + 0.0)

    def similarity(self, images: Tensor) -> Tensor:
        """How alike CLIP finds the image of this point and other images."""
        return self._similarity(self.draw(), images)

    def _similarity(self, fake, images):
        clip = self.generator.clip
        embeddings = [clip.extract_features_and_embed(x)[1] for x in (fake, images)]
        return losses.clip_similarity(*embeddings)

    def train_step(self, *args: Any) -> Any:
        with backend.compiled(self.jit_compile):
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
