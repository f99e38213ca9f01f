"""Noise and condition of a given image, by gradient descent."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from galip_keras import backend
from galip_keras.models import losses
from galip_keras.models.average import clone_frozen
from galip_keras.models.noise import noise
from galip_keras.models.optimizers import adam
from galip_keras.sampling.latent import Point

# Candidates among which inversion looks for a place to begin.
_STARTS = 32

# How much in the loss of an inversion a change of CLIP's opinion, and of the length of
# the noise, counts beside the squared error of pixels in [-1, 1].
_SIMILARITY_WEIGHT = 0.1
_LENGTH_WEIGHT = 0.1


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
    starts = noise(range(seed, seed + _STARTS), generator.latent_dim)
    drawn = np.concatenate([model.decode(z[None], text) for z in starts])
    errors = [_error(picture, image) for picture in drawn]
    best = int(np.argmin(errors))
    descent = _Descent(clone_frozen(generator), starts[best][None], text)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1))
    jit_compile = backend.should_jit(generator, steps)
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
