"""GALIP as a Keras model: `fit` trains Mate-G against Mate-D.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959).
"""

import keras
from keras import ops

from galip_keras import augmentation as augmentations
from galip_keras import backend, losses
from galip_keras.backend import devices
from galip_keras.mate_d import MateD

_LOSSES = (
    "d_real",
    "d_mismatch",
    "d_fake",
    "gradient_penalty",
    "g_adversarial",
    "similarity",
    "out_of_range",
)
_GRADIENT_NORMS = ("d_gradient_norm", "g_gradient_norm")

# The average of the weights looks back over this part of the training so far at most,
# so that the first steps are soon forgotten.
_AVERAGE_RAMP = 0.05


class AdversarialOptimizer(keras.optimizers.MultiOptimizer):
    """One optimizer for the generator, one for the discriminator.

    Keras' trainers and savers know a single `model.optimizer`: this is it. The networks
    take turns, so the training step applies the two themselves.

    Args:
        generator: `keras.optimizers.Optimizer`.
        discriminator: `keras.optimizers.Optimizer`.
        generator_variables: list of `keras.Variable`. All others are the
            discriminator's.
    """

    def __init__(self, generator, discriminator, generator_variables):
        super().__init__({"generator": generator, "discriminator": discriminator})
        self.generator = generator
        self.discriminator = discriminator
        self._owned = {id(v) for v in generator_variables}

    # `MultiOptimizer` refuses optimizers that scale the loss, whose scale it would not
    # ask for. The training step does.
    def build(self, var_list):
        if not self.built:
            for optimizer, variables in self._by_optimizer(var_list):
                optimizer.build(variables)
            keras.optimizers.Optimizer.build(self, var_list)

    def finalize_variable_values(self, var_list):
        for optimizer, variables in self._by_optimizer(var_list):
            optimizer.finalize_variable_values(variables)

    def _by_optimizer(self, variables):
        owned = [v for v in variables if id(v) in self._owned]
        others = [v for v in variables if id(v) not in self._owned]
        return (self.generator, owned), (self.discriminator, others)

    # Savers visit the two optimizers by themselves; their variables once is enough.
    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIP(keras.Model):
    """Generator and discriminator on one frozen CLIP, trained by `fit`.

    A training step updates the discriminator, then the generator against the updated
    discriminator; both use the same single pass through generator and CLIP.

    Args:
        generator: a `galip_keras.MateG`. Its CLIP is the one that is used.
        discriminator: a `galip_keras.MateD`. Defaults to the one that fits the CLIP.
        average: bool. Whether to keep an `averaged_generator`, whose weights are a
            moving average of the generator's: it makes better pictures.
        similarity_weight: float. Weight of the CLIP similarity in the generator's loss.
        penalty_weight: float. Weight of the matching-aware gradient penalty.
        range_weight: float. Weight of the squared distance of pixels to [-1, 1] in the
            generator's loss. The paper has none; a small CLIP is too easily pleased by
            colours that no picture can have.
        augmentation: sequence of strings out of `galip_keras.augmentation.KINDS`. How
            pictures are changed, differentiably, before the CLIP of the discriminator
            sees them, real and generated ones alike. None by default.
        seed: int. Seed of the training noise.
        name: string.
        **kwargs: other keyword arguments of `keras.Model`.

    Call arguments:
        inputs: dict with `"token_ids"`, an int tensor `(batch_size, sequence_length)`,
            and `"noise"`, a float tensor `(batch_size, latent_dim)`.

    Returns:
        Images, a float32 tensor `(batch_size, image_size, image_size, 3)`, around
        [-1, 1] but not clipped to it.

    `fit` takes batches that are dicts with `"images"`, a float tensor
    `(batch_size, height, height, 3)` in [-1, 1] of any size, and `"token_ids"`, or in
    their place `"text_embeddings"`, what `FrozenCLIP.embed_text` makes of them, and
    optionally what is drawn anew where absent: `"noise"`, and for an augmentation
    `"augmentation"`, uniform numbers `(batch_size, 2, augmentation.NUM_RANDOM)`, those
    of the real and those of the generated picture. `"mismatched_token_ids"` or
    `"mismatched_embeddings"` are sentences that are not true of the images. By default
    each image gets the next sentence in the batch.

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
        generator,
        discriminator=None,
        average=False,
        similarity_weight=4.0,
        penalty_weight=2.0,
        range_weight=0.0,
        augmentation=(),
        seed=0,
        name="galip",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.generator = generator
        self.discriminator = discriminator or MateD.for_clip(
            generator.clip, dtype=generator.dtype_policy
        )
        self.averaged_generator = frozen_twin(generator) if average else None
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = [
            keras.metrics.Mean(name=name) for name in (*_LOSSES, *_GRADIENT_NORMS)
        ]
        # Optimizers do not count the steps that loss scaling skips.
        self.step = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, name="step"
        )
        self.built = True

        self.similarity_weight = similarity_weight
        self.penalty_weight = penalty_weight
        self.range_weight = range_weight
        self.augmentation = _check_augmentation(augmentation)
        self.seed = seed

    jit_compile = devices.jit_compile

    @property
    def clip(self):
        """The `galip_keras.FrozenCLIP` that both networks stand on."""
        return self.generator.clip

    def call(self, inputs):
        text_embeddings = self.clip.embed_text(inputs["token_ids"])
        return self.generator(inputs["noise"], text_embeddings)

    def compile(
        self,
        generator_optimizer=None,
        discriminator_optimizer=None,
        average_half_life=1000,
        run_eagerly=False,
        jit_compile="auto",
        auto_scale_loss=True,
        **kwargs,
    ):
        """Configures training.

        Args:
            generator_optimizer: a `keras.optimizers.Optimizer`. Defaults to the
                paper's: Adam, learning rate 1e-4, betas 0 and 0.9.
            discriminator_optimizer: the same, with learning rate 4e-4 by default.
            average_half_life: float. Steps after which weights count half in the
                averaged generator, if there is one. Less at first: a twentieth of the
                steps so far.
            run_eagerly: bool. As in `keras.Model.compile`.
            jit_compile: bool or `"auto"`: compiled by XLA where that pays. It does on
                JAX and, unless the model is small and runs on a CPU, on TensorFlow.
            auto_scale_loss: bool. Whether to wrap the optimizers in a
                `keras.optimizers.LossScaleOptimizer` each, where the generator computes
                in float16.
            **kwargs: other keyword arguments of `keras.Model.compile`.
        """
        self.average_half_life = average_half_life
        if jit_compile == "auto":
            jit_compile = not run_eagerly and backend.jit_pays(self.generator)
        optimizers = [
            generator_optimizer or adam(1e-4),
            discriminator_optimizer or adam(4e-4),
        ]
        if auto_scale_loss and self.generator.compute_dtype == "float16":
            optimizers = [_scale_losses(optimizer) for optimizer in optimizers]
        optimizer = AdversarialOptimizer(
            *optimizers, self.generator.trainable_variables
        )
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            jit_compile=jit_compile,
            auto_scale_loss=False,
            **kwargs,
        )
        optimizer.build(self.trainable_variables)

    def train_step(self, *args):
        return backend.run_step(self, self._train_step, *args)

    def _train_step(self, data):
        """One update of both networks.

        Returns:
            The running means of the losses and of the norms of the gradients, by name.
        """
        data, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        text = self._embedded(data, "text_embeddings", "token_ids")
        mismatched = self._embedded(
            data, "mismatched_embeddings", "mismatched_token_ids"
        )
        noise = data.get("noise")
        if noise is None:
            shape = (ops.shape(text)[0], self.generator.latent_dim)
            noise = keras.random.normal(shape, seed=self.seed_generator)
        augment_real, augment_fake = self._augmenters(data, ops.shape(text)[0])
        real_features = self.clip.extract_features(augment_real(data["images"]))

        def generate():
            images = self.generator(noise, text)
            excess = losses.range_penalty(images)
            return (*self.clip.extract_features_and_embed(augment_fake(images)), excess)

        # The only pass through generator and CLIP. The discriminator learns from its
        # outputs; then the generator's gradient is pulled back through it.
        fakes, pull = backend.pullback(generate, self.generator.trainable_variables)
        d_values = self._update_discriminator(
            real_features, ops.stop_gradient(fakes[0]), text, mismatched
        )
        g_values = self._update_generator(fakes, text, pull)
        self.step.assign(self.step + 1)
        if self.averaged_generator is not None:
            self._update_average()
        values = {**d_values, **g_values}
        for tracker in self.trackers:
            tracker.update_state(values[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def _embedded(self, data, embeddings, token_ids):
        """Sentence embeddings from a batch's embeddings or tokens, or None."""
        if embeddings in data:
            return ops.convert_to_tensor(data[embeddings], "float32")
        return self.clip.embed_text(data[token_ids]) if token_ids in data else None

    def _augmenters(self, data, batch_size):
        """What is done to real and to generated images before CLIP sees them."""
        if not self.augmentation:
            return (lambda images: images,) * 2
        numbers = data.get("augmentation")
        if numbers is None:
            shape = (batch_size, 2, augmentations.NUM_RANDOM)
            numbers = keras.random.uniform(shape, seed=self.seed_generator)

        def augmenter(i):
            return lambda images: augmentations.augment(
                images, numbers[:, i], self.augmentation
            )

        return augmenter(0), augmenter(1)

    def _update_discriminator(self, *inputs):
        optimizer = self.optimizer.discriminator

        def scaled_loss():
            loss, terms = self.discriminator_loss(*inputs)
            return optimizer.scale_loss(loss), terms

        variables = self.discriminator.trainable_variables
        (_, terms), gradients = backend.value_and_gradient(scaled_loss, variables)
        norm = _unscaled_norm(gradients, optimizer)
        backend.apply(optimizer, gradients, variables)
        return {**terms, "d_gradient_norm": norm}

    def _update_generator(self, fakes, text, pull):
        optimizer = self.optimizer.generator

        def scaled_loss(features, embeddings, excess):
            loss, terms = self.generator_loss(features, embeddings, text, excess)
            return optimizer.scale_loss(loss), terms

        (_, terms), cotangents = backend.value_and_input_gradient(scaled_loss, *fakes)
        gradients = pull(cotangents)
        norm = _unscaled_norm(gradients, optimizer)
        backend.apply(optimizer, gradients, self.generator.trainable_variables)
        return {**terms, "g_gradient_norm": norm}

    def _update_average(self):
        steps = ops.cast(self.step, "float32")
        half_life = ops.minimum(_AVERAGE_RAMP * steps, self.average_half_life)
        momentum = ops.power(0.5, 1.0 / half_life)
        for average, weight in _pairs(self.averaged_generator, self.generator):
            average.assign(weight + momentum * (average - weight))

    def discriminator_loss(
        self, real_features, fake_features, text_embeddings, mismatched=None
    ):
        """The discriminator's loss and a dict of its terms, by name.

        Args:
            real_features: tensor `(batch_size, num_taps, grid_size, grid_size,
                hidden_dim)`, of real images.
            fake_features: tensor of the same shape, of generated images.
            text_embeddings: tensor `(batch_size, embedding_dim)`. A sentence an image.
            mismatched: tensor of the same shape. Sentences that are not true of the
                real images. By default `text_embeddings` rolled by one over the batch
                of all devices.
        """

        def matching(features, text):
            extracted = self.discriminator.extract(features)
            logits = self.discriminator.match(extracted, text)
            return ops.sum(logits), (logits, extracted)

        (_, (logits, extracted)), gradients = backend.value_and_input_gradient(
            matching, real_features, text_embeddings
        )
        if mismatched is None:
            mismatched = devices.roll(text_embeddings)
        terms = {
            "d_real": losses.hinge_real(logits),
            "d_mismatch": losses.hinge_fake(
                self.discriminator.match(extracted, mismatched)
            ),
            "d_fake": losses.hinge_fake(
                self.discriminator(fake_features, text_embeddings)
            ),
            "gradient_penalty": losses.matching_aware_penalty(
                gradients, self.penalty_weight
            ),
        }
        loss = terms["d_real"] + (terms["d_mismatch"] + terms["d_fake"]) / 2
        return loss + terms["gradient_penalty"], terms

    def generator_loss(
        self, fake_features, fake_embeddings, text_embeddings, out_of_range=0.0
    ):
        """The generator's loss and a dict of its terms, by name.

        Args:
            fake_features: tensor `(batch_size, num_taps, grid_size, grid_size,
                hidden_dim)`, of generated images.
            fake_embeddings: tensor `(batch_size, embedding_dim)`, theirs.
            text_embeddings: tensor `(batch_size, embedding_dim)`, of their sentences.
            out_of_range: scalar. The `losses.range_penalty` of the generated images.
        """
        terms = {
            "g_adversarial": -ops.mean(
                self.discriminator(fake_features, text_embeddings)
            ),
            "similarity": losses.clip_similarity(fake_embeddings, text_embeddings),
            "out_of_range": out_of_range,
        }
        loss = terms["g_adversarial"] - self.similarity_weight * terms["similarity"]
        return loss + self.range_weight * out_of_range, terms

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """As in Keras, both optimizers included and the frozen CLIP left out."""
        keras.saving.save_weights(
            self, filepath, overwrite, objects_to_skip=self._frozen_layers(), **kwargs
        )

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """As in Keras, for what `save_weights` wrote."""
        keras.saving.load_weights(
            self,
            filepath,
            skip_mismatch,
            objects_to_skip=self._frozen_layers(),
            **kwargs,
        )

    def _frozen_layers(self):
        return list(self.clip._flatten_layers())

    def get_config(self):
        return {
            "generator": keras.layers.serialize(self.generator),
            "discriminator": keras.layers.serialize(self.discriminator),
            "average": self.averaged_generator is not None,
            "similarity_weight": self.similarity_weight,
            "penalty_weight": self.penalty_weight,
            "range_weight": self.range_weight,
            "augmentation": self.augmentation,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        networks = {
            name: keras.layers.deserialize(config[name])
            for name in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})


def adam(learning_rate, **kwargs):
    """The paper's optimizer.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        **kwargs: other keyword arguments of `keras.optimizers.Adam`.
    """
    return keras.optimizers.Adam(
        learning_rate, beta_1=0.0, beta_2=0.9, epsilon=1e-8, **kwargs
    )


def frozen_twin(generator):
    """A generator of the same weights on the same CLIP, not to be trained."""
    config = {**generator.get_config(), "clip": generator.clip}
    twin = type(generator)(**{**config, "name": f"averaged_{generator.name}"})
    for variable, original in _pairs(twin, generator):
        # By way of NumPy: JAX would let the two share their memory.
        variable.assign(ops.convert_to_numpy(original))
    twin.trainable = False
    return twin


def _pairs(generator, other):
    """The variables of two generators on the same CLIP, without those of CLIP."""
    frozen = {id(variable) for variable in generator.clip.variables}
    pairs = zip(generator.variables, other.variables)
    return [pair for pair in pairs if id(pair[0]) not in frozen]


def _unscaled_norm(gradients, optimizer):
    return losses.global_norm(gradients) / optimizer.scale_loss(1.0)


def _check_augmentation(kinds):
    unknown = sorted(set(kinds) - set(augmentations.KINDS))
    if unknown:
        raise ValueError(
            f"`augmentation` must be out of {', '.join(augmentations.KINDS)}. "
            f"Received: {', '.join(unknown)}"
        )
    return tuple(kinds)


def _scale_losses(optimizer):
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)
