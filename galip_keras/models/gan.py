"""The training of GALIP as a Keras model: `fit` trains Mate-G against Mate-D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from galip_keras import backend
from galip_keras.backend import Tensor
from galip_keras.models import augmentation as augmentations
from galip_keras.models import losses
from galip_keras.models.average import clone_frozen, update_average
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.mate_d import MateD
from galip_keras.models.mate_g import MateG
from galip_keras.models.optimizers import (
    AdversarialOptimizer,
    adam,
    scale_losses,
    unscaled_norm,
)
from galip_keras.models.weights import TrainedWeights

_GRADIENT_NORMS = ("d_gradient_norm", "g_gradient_norm")


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIP(TrainedWeights, keras.Model):
    """Generator and discriminator on one frozen CLIP, trained by `fit`.

    A training step updates the discriminator, and then the generator against the
    updated discriminator. Both updates share one pass through the generator and CLIP.

    Args:
        generator: a `galip_keras.MateG`. Both networks use its CLIP.
        discriminator: a `galip_keras.MateD`. Defaults to one that fits the CLIP.
        average: bool. Whether to keep an `averaged_generator`, which makes better
            images. Its weights are a moving average of the generator's.
        similarity_weight: float. Weight of the CLIP similarity in the generator's loss.
        penalty_weight: float. Weight of the matching-aware gradient penalty.
        range_weight: float. Weight of the squared distance of pixels to [-1, 1] in the
            generator's loss. The paper has no such term, but a small CLIP is easily
            fooled by colours outside the range.
        energy_weight: float. Weight of `losses.energy_score` in the generator's loss.
            If it is not 0, a step generates two images of every second caption instead
            of one of each. The paper has no such term.
        augmentation: sequence of strings from `galip_keras.models.augmentation.KINDS`.
            Differentiable changes of real and generated images before CLIP extracts
            the discriminator's features. None by default.
        seed: int. Seed of the training noise.
        name: string.
        **kwargs: other keyword arguments of `keras.Model`.

    Call arguments:
        inputs: dict with `"token_ids"`, an int tensor `(batch_size, sequence_length)`,
            and `"noise"`, a float tensor `(batch_size, latent_dim)`.

    Returns:
        Images, a float32 tensor `(batch_size, image_size, image_size, 3)`, around
        [-1, 1] but not clipped to it.

    `fit` takes batches that are dicts with these tensors:

    - `"images"`: float `(batch_size, height, height, 3)` in [-1, 1], of any size.
    - `"token_ids"`: int `(batch_size, sequence_length)`, or in their place
      `"text_embeddings"`: float `(batch_size, embedding_dim)`, the output of
      `FrozenCLIP.embed_text`.
    - `"noise"`: float `(batch_size, latent_dim)`. Optional, drawn at random if absent.
    - `"augmentation"`: float `(batch_size, 2, augmentation.NUM_RANDOM)`, uniform in
      [0, 1), for each real and each generated image. Optional like the noise.
    - `"mismatched_token_ids"` or `"mismatched_embeddings"`: captions that are not true
      of the images. Optional: by default each image gets the next one's caption.

    Example:

    ```python
    gan = galip_keras.GALIP(galip_keras.GALIPBackbone.from_preset("toybirds").generator)
    gan.compile()
    images = np.zeros((8, 64, 64, 3), "float32")
    gan.fit({"images": images, "token_ids": np.ones((8, 77), "int32")}, batch_size=4)
    ```

    Reference:
        [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
        https://arxiv.org/abs/2301.12959)
    """

    def __init__(
        self,
        generator: MateG,
        discriminator: MateD | None = None,
        average: bool = False,
        similarity_weight: float = 4.0,
        penalty_weight: float = 2.0,
        range_weight: float = 0.0,
        energy_weight: float = 0.0,
        augmentation: Sequence[str] = (),
        seed: int = 0,
        name: str = "galip",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)

        # === Layers ===
        self.generator = generator
        self.discriminator = discriminator or MateD.for_clip(
            generator.clip, dtype=generator.dtype_policy
        )
        self.averaged_generator = clone_frozen(generator) if average else None
        self.seed_generator = keras.random.SeedGenerator(seed)
        reported = [*losses.TERMS, *_GRADIENT_NORMS]
        if energy_weight:
            reported.append(losses.ENERGY)
        self.trackers = [keras.metrics.Mean(name=name) for name in reported]

        # === Weights ===
        # Optimizers do not count the steps that loss scaling skips.
        self.step = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="step"
        )
        self.built = True

        # === Config ===
        self.similarity_weight = similarity_weight
        self.penalty_weight = penalty_weight
        self.range_weight = range_weight
        self.energy_weight = energy_weight
        self.augmentation = augmentations.check_kinds(augmentation)
        self.seed = seed

    jit_compile = backend.jit_compile

    @property
    def clip(self) -> FrozenCLIP:
        """The `galip_keras.FrozenCLIP` that both networks share."""
        return self.generator.clip

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        text_embeddings = self.clip.embed_text(inputs["token_ids"])
        return self.generator(inputs["noise"], text_embeddings)

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: keras.optimizers.Optimizer | None = None,
        average_half_life: float = 1000,
        run_eagerly: bool = False,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        """Configure training.

        Args:
            generator_optimizer: a `keras.optimizers.Optimizer`. Defaults to the
                paper's: Adam, learning rate 1e-4, betas 0 and 0.9.
            discriminator_optimizer: the same, with learning rate 4e-4 by default.
            average_half_life: float. Steps after which weights count half in the
                averaged generator. At most a twentieth of the steps so far.
            run_eagerly: bool. As in `keras.Model.compile`.
            jit_compile: bool or `"auto"`: see `galip_keras.backend.choices`.
            auto_scale_loss: bool. Whether to wrap each optimizer in a
                `keras.optimizers.LossScaleOptimizer` if the generator computes in
                float16.
            **kwargs: other keyword arguments of `keras.Model.compile`.
        """
        self.average_half_life = average_half_life
        if jit_compile == "auto":
            jit_compile = not run_eagerly and backend.should_jit(self.generator)
        optimizers = [
            generator_optimizer or adam(1e-4),
            discriminator_optimizer or adam(4e-4),
        ]
        if auto_scale_loss and self.generator.compute_dtype == "float16":
            optimizers = [scale_losses(optimizer) for optimizer in optimizers]
        optimizer = AdversarialOptimizer(
            optimizers[0], optimizers[1], self.generator.trainable_variables
        )
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            jit_compile=jit_compile,
            auto_scale_loss=False,
            **kwargs,
        )
        optimizer.build(self.trainable_variables)

    def train_step(self, *args: Any) -> Any:
        with backend.compiled(self.jit_compile):
            return backend.run_step(self, self._train_step, *args)

    def _train_step(self, data):
        """Update both networks.

        Returns:
            The running means of the losses and of the gradient norms, by name.
        """
        data, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        text = self._embed(data, "text_embeddings", "token_ids")
        mismatched = self._embed(data, "mismatched_embeddings", "mismatched_token_ids")
        noise = self._noise(data, ops.shape(text)[0])
        augment_real, augment_fake = self._augmenters(data, ops.shape(text)[0])
        real_images, fake_text = augment_real(data["images"]), text
        if self.energy_weight:
            real_features, real = self.clip.extract_features_and_embed(real_images)
            fake_text = losses.pair_up(text)
        else:
            real_features = self.clip.extract_features(real_images)

        def generate():
            images = self.generator(noise, fake_text)
            others = [losses.range_penalty(images)]
            fakes = self.clip.extract_features_and_embed(augment_fake(images))
            if self.energy_weight:
                others.append(losses.energy_score(fakes[1], real))
            return (*fakes, *others)

        # The only pass through generator and CLIP. The discriminator learns from its
        # outputs. Then the generator's loss is pulled back through the same pass.
        fakes, pull = backend.pullback(generate, self.generator.trainable_variables)
        fake_features = ops.stop_gradient(fakes[0])
        d_values = self._update_discriminator(
            real_features, fake_features, text, mismatched, fake_text
        )
        g_values = self._update_generator(fakes, fake_text, pull)
        self.step.assign(self.step + 1)
        if self.averaged_generator is not None:
            update_average(
                self.averaged_generator,
                self.generator,
                self.step,
                self.average_half_life,
            )
        return self._report({**d_values, **g_values})

    def _report(self, values):
        for tracker in self.trackers:
            tracker.update_state(values[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def _embed(self, data, embeddings, token_ids):
        """Text embeddings that a batch holds, or holds the tokens of, or None."""
        if embeddings in data:
            return ops.convert_to_tensor(data[embeddings], "float32")
        return self.clip.embed_text(data[token_ids]) if token_ids in data else None

    def _noise(self, data, batch_size):
        noise = data.get("noise")
        if noise is None:
            shape = (batch_size, self.generator.latent_dim)
            noise = keras.random.normal(shape, seed=self.seed_generator)
        return noise

    def _augmenters(self, data, batch_size):
        """Functions that change real and generated images before CLIP sees them."""
        if not self.augmentation:
            return (lambda images: images,) * 2
        numbers = data.get("augmentation")
        if numbers is None:
            shape = (batch_size, 2, augmentations.NUM_RANDOM)
            numbers = keras.random.uniform(shape, seed=self.seed_generator)
        return augmentations.augmenters(numbers, self.augmentation)

    def _update_discriminator(self, *inputs):
        optimizer = self.optimizer.discriminator

        def scaled_loss():
            loss, terms = self.discriminator_loss(*inputs)
            return optimizer.scale_loss(loss), terms

        variables = self.discriminator.trainable_variables
        (_, terms), gradients = backend.value_and_gradient(scaled_loss, variables)
        norm = unscaled_norm(gradients, optimizer)
        backend.apply(optimizer, gradients, variables)
        return {**terms, "d_gradient_norm": norm}

    def _update_generator(self, fakes, text, pull):
        optimizer = self.optimizer.generator

        def scaled_loss(features, embeddings, *others):
            loss, terms = self.generator_loss(features, embeddings, text, *others)
            return optimizer.scale_loss(loss), terms

        (_, terms), cotangents = backend.value_and_input_gradient(scaled_loss, *fakes)
        gradients = pull(cotangents)
        norm = unscaled_norm(gradients, optimizer)
        backend.apply(optimizer, gradients, self.generator.trainable_variables)
        return {**terms, "g_gradient_norm": norm}

    def discriminator_loss(
        self,
        real_features: Tensor,
        fake_features: Tensor,
        text_embeddings: Tensor,
        mismatched: Tensor | None = None,
        fake_text: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the discriminator's loss and its terms.

        Args:
            real_features: tensor `(batch_size, num_taps, grid_size, grid_size,
                hidden_dim)`, of real images.
            fake_features: tensor of the same shape, of generated images.
            text_embeddings: tensor `(batch_size, embedding_dim)`, one per image.
            mismatched: tensor of the same shape, of captions that are not true of the
                real images. Defaults to `text_embeddings` rolled by one over the batch
                of all devices.
            fake_text: tensor of the same shape, of the captions of the generated
                images. Defaults to `text_embeddings`.

        Returns:
            A tuple of the loss, a scalar, and a dict of its terms by name.
        """

        def matching(features, text):
            extracted = self.discriminator.extract(features)
            logits = self.discriminator.match(extracted, text)
            return ops.sum(logits), (logits, extracted)

        (_, (logits, extracted)), gradients = backend.value_and_input_gradient(
            matching, real_features, text_embeddings
        )
        if mismatched is None:
            mismatched = backend.roll(text_embeddings)
        if fake_text is None:
            fake_text = text_embeddings
        d_real = losses.hinge_real(logits)
        d_mismatch = losses.hinge_fake(self.discriminator.match(extracted, mismatched))
        d_fake = losses.hinge_fake(self.discriminator(fake_features, fake_text))
        penalty = losses.matching_aware_penalty(gradients, self.penalty_weight)
        terms = {
            "d_real": d_real,
            "d_mismatch": d_mismatch,
            "d_fake": d_fake,
            "gradient_penalty": penalty,
        }
        return d_real + (d_mismatch + d_fake) / 2 + penalty, terms

    def generator_loss(
        self,
        fake_features: Tensor,
        fake_embeddings: Tensor,
        text_embeddings: Tensor,
        out_of_range: Tensor = 0.0,
        energy_score: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the generator's loss and its terms.

        Args:
            fake_features: tensor `(batch_size, num_taps, grid_size, grid_size,
                hidden_dim)`, of generated images.
            fake_embeddings: tensor `(batch_size, embedding_dim)`, of the same images.
            text_embeddings: tensor `(batch_size, embedding_dim)`, one per image.
            out_of_range: scalar. The `losses.range_penalty` of the same images.
            energy_score: scalar. Their `losses.energy_score`, if it counts.

        Returns:
            A tuple of the loss, a scalar, and a dict of its terms by name.
        """
        g_adversarial = -ops.mean(self.discriminator(fake_features, text_embeddings))
        similarity = losses.clip_similarity(fake_embeddings, text_embeddings)
        terms = {
            "g_adversarial": g_adversarial,
            "similarity": similarity,
            "out_of_range": out_of_range,
        }
        loss = g_adversarial - self.similarity_weight * similarity
        loss = loss + self.range_weight * out_of_range
        if energy_score is not None:
            terms[losses.ENERGY] = energy_score
            loss = loss + self.energy_weight * energy_score
        return loss, terms

    def get_config(self) -> dict[str, Any]:
        return {
            "generator": keras.layers.serialize(self.generator),
            "discriminator": keras.layers.serialize(self.discriminator),
            "average": self.averaged_generator is not None,
            "similarity_weight": self.similarity_weight,
            "penalty_weight": self.penalty_weight,
            "range_weight": self.range_weight,
            "energy_weight": self.energy_weight,
            "augmentation": self.augmentation,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> GALIP:
        networks = {
            name: keras.layers.deserialize(config[name])
            for name in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})
