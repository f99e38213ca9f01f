"""What a run will do: its data, its networks, its length and the memory it takes."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from galip_keras import backend, datasets
from galip_keras.console import say
from galip_keras.models.architectures import ARCHITECTURES, BUNDLED
from galip_keras.models.gan import GALIP
from galip_keras.models.mate_d import MateD
from galip_keras.models.mate_g import MateG
from galip_keras.models.optimizers import adam
from galip_keras.models.precision import set_precision
from galip_keras.models.text_to_image import GALIPTextToImage
from galip_keras.presets.fine_tuning import (
    LOSS_WEIGHTS,
    load_discriminator,
    own_settings,
)
from galip_keras.presets.loading import load_model
from galip_keras.presets.sizes import describe, num_parameters
from galip_keras.training.config import TrainingConfig
from galip_keras.training.journal import check_wandb
from galip_keras.training.recipes import DEFAULT_RECIPE, defaults

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Fits the peaks that benchmarks/train_step.py measured: how many tensors of its size
# each generator block, and each layer of CLIP, keeps for the backward pass, and what
# the libraries take for themselves.
_TENSORS_PER_BLOCK = 15
_TENSORS_PER_LAYER = 12
_LIBRARIES_GIB = 2.0

# The layers of each part that can be frozen, after the network that has them.
_PARTS = {
    "bridge": ("G", "bridge_predictor"),
    "prompts": ("G", "prompt_predictor"),
    "blocks": ("G", "conv", "generator_blocks", "to_rgb"),
    "extractor": ("D", "tap_blocks", "narrow_block"),
    "head": ("D", "head_conv_1", "head_conv_2"),
}


def resolve(config: TrainingConfig) -> TrainingConfig:
    """Fill in what the model decides, and make paths absolute.

    Raises:
        ValueError: where the settings cannot work on this machine.
    """
    init = config.init
    if init is None and config.preset not in ARCHITECTURES:
        init = config.preset
    recipe = config.recipe or DEFAULT_RECIPE
    if recipe == "few-shot" and init is None:
        raise ValueError(
            "the `recipe` few-shot is for fine-tuning: give the model to start from as "
            "`init`"
        )
    left_out = {
        name: value
        for name, value in defaults(recipe, own_settings(config.preset, init)).items()
        if getattr(config, name) is None
    }
    _check_devices(config)
    if config.wandb:
        check_wandb()
    name, colon, source = config.dataset.partition(":")
    return config.replace(
        dataset=f"{name}:{_absolute(source)}" if colon and source else name,
        preset=_absolute(config.preset),
        init=_absolute(init),
        clip=_absolute(config.clip),
        data_dir=config.data_dir and str(Path(config.data_dir).expanduser().absolute()),
        captions=config.captions
        if config.captions in (None, datasets.PAPER)
        else str(Path(config.captions).expanduser().absolute()),
        recipe=recipe,
        **left_out,
    )


def _absolute(source: str | None) -> str | None:
    """A source with its path made absolute, if it is a path that exists."""
    if source is None or source in (*ARCHITECTURES, *BUNDLED, "random"):
        return source
    path = os.path.expanduser(source)
    return os.path.abspath(path) if os.path.exists(path) else source


def _check_devices(config: TrainingConfig) -> None:
    shares = config.num_devices * backend.process()[1]
    if config.batch_size % shares:
        raise ValueError(
            f"{shares} devices cannot share {config.batch_size} images per step: "
            "`batch_size` must be a multiple"
        )


@dataclasses.dataclass
class Plan:
    """A configuration together with the data and the model that it names.

    Attributes:
        config: `TrainingConfig`, with everything filled in.
        builder: the `tfds.core.DatasetBuilder` of the prepared data.
        model: the `galip_keras.GALIPTextToImage` to train.
        num_images: int. Images of the training split.
    """

    config: TrainingConfig
    builder: tfds.core.DatasetBuilder
    model: GALIPTextToImage
    num_images: int

    @classmethod
    def of(cls, config: TrainingConfig) -> Plan:
        """Prepare the data, unless that was done before, and build the model."""
        builder = datasets.prepare(
            config.dataset,
            data_dir=config.data_dir,
            captions=config.captions,
            allow_bad=config.allow_bad,
            **{name: getattr(config, name) for name in datasets.FOLDER_OPTIONS},
        )
        # Only now: it loads TensorFlow.
        from galip_keras.datasets.pipeline import num_examples

        return cls(config, builder, build_model(config), num_examples(builder))

    def embed_captions(self) -> list[str] | None:
        """Embed the captions once, before training.

        Returns:
            The files of the embeddings, or None where none can be written.
        """
        from galip_keras.datasets import embeddings

        clip, preprocessor = self.model.backbone.clip, self.model.preprocessor
        try:
            return embeddings.cache(self.builder, clip, preprocessor)
        except OSError as error:
            say(
                f"Captions are embedded at every step: {self.builder.data_path} cannot "
                f"be written ({error.strerror})."
            )
            return None

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_images / self.config.batch_size)

    @property
    def total_steps(self) -> int:
        if self.config.steps is not None:
            return self.config.steps
        assert self.config.epochs is not None
        return self.config.epochs * self.steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """Settings, length, sizes and memory, as plain values."""
        return {
            **self.config.to_dict(),
            "pictures": self.num_images,
            "steps_per_epoch": self.steps_per_epoch,
            "total_steps": self.total_steps,
            **describe(self.model),
            "memory_gib": round(self._memory_gib(), 1),
        }

    def _memory_gib(self) -> float:
        """Rough estimate of the memory that a step takes on each device."""
        config, clip = self.config, self.model.backbone.clip
        networks = self.model.backbone.generator, MateD.for_clip(clip)
        generator, discriminator = (
            num_parameters(network.trainable_variables) for network in networks
        )
        frozen = sum(
            num_parameters(layer.variables)
            for layer in frozen_layers(*networks, config.freeze or ())
        )
        # Weights, gradients and two moments of what is trained, and what is frozen.
        numbers = 4 * (generator + discriminator) - 3 * frozen
        numbers += num_parameters(clip.variables)
        # The average, before and after an update.
        numbers += 2 * generator * (config.average > 0)
        numbers += (generator + discriminator - frozen) * (config.accumulate > 1)
        images = config.batch_size // config.num_devices // backend.process()[1]
        size = 4 if config.precision == "float32" else 2
        gib = (4 * numbers + size * images * self._activations()) / 2**30
        return gib + _LIBRARIES_GIB

    def _activations(self) -> int:
        """Numbers that an image leaves in memory for the backward pass."""
        generator, clip = self.model.backbone.generator, self.model.backbone.clip
        pixels = sum(x.size**2 * x.filters for x in generator.generator_blocks)
        tokens = 3 * clip.num_layers * (clip.grid_size**2 + 1) * clip.hidden_dim
        return _TENSORS_PER_BLOCK * pixels + _TENSORS_PER_LAYER * tokens


def build_model(config: TrainingConfig) -> GALIPTextToImage:
    """Build the model to train, the same one each time."""
    keras.utils.set_random_seed(config.seed)
    model = load_model(config.init or config.preset, config.clip)
    if model.preprocessor is None:
        raise ValueError(f"{config.init} has no tokenizer: it cannot read captions")
    # The data report counts captions that are too long.
    model.preprocessor.warns = False
    return model


def build_gan(plan: Plan) -> GALIP:
    """Join a plan's generator with a discriminator, compiled for training."""
    config, model = plan.config, plan.model
    discriminator = load_discriminator(model, config.init, config.preset)
    for network in (model.backbone, discriminator):
        set_precision(network, config.precision)
    generator = model.backbone.generator
    gan = GALIP(
        generator,
        discriminator,
        average=config.average > 0,
        **{name: getattr(config, name) for name in LOSS_WEIGHTS},
        augmentation=config.augmentation or (),
        seed=config.seed,
    )
    for layer in frozen_layers(generator, discriminator, config.freeze or ()):
        layer.trainable = False
    compile_gan(gan, plan)
    return gan


def frozen_layers(
    generator: MateG, discriminator: MateD, parts: Iterable[str]
) -> list[keras.layers.Layer]:
    """The layers of the parts that `TrainingConfig.freeze` names.

    Raises:
        ValueError: if the generator has no such part.
    """
    frozen: list[keras.layers.Layer] = []
    for part in parts:
        network, *names = _PARTS[part]
        for name in names:
            layers = getattr({"G": generator, "D": discriminator}[network], name)
            if layers is None:
                raise ValueError(f"this model has no {part} to freeze")
            frozen += layers if isinstance(layers, list) else [layers]
    return frozen


def compile_gan(gan: GALIP, plan: Plan, learning_rate_factor: float = 1.0) -> None:
    """Give a GAN new optimizers."""
    config = plan.config
    factor = learning_rate_factor
    if config.base_batch_size:
        factor *= math.sqrt(config.images_per_update / config.base_batch_size)
    accumulate = config.accumulate if config.accumulate > 1 else None

    def optimizer(rate: float | None) -> keras.optimizers.Optimizer:
        assert rate is not None  # `resolve` has filled it in.
        rates = learning_rates(rate * factor, config, plan.total_steps)
        return adam(rates, gradient_accumulation_steps=accumulate)

    gan.compile(
        generator_optimizer=optimizer(config.generator_lr),
        discriminator_optimizer=optimizer(config.discriminator_lr),
        average_half_life=config.average / config.batch_size,
    )


def learning_rates(
    highest: float, config: TrainingConfig, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of each step, with warm-up and decay."""
    warmup = config.warmup_steps
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else highest,
        decay_steps=max(total_steps - warmup, 1),
        # The fraction that is left at the end.
        alpha=0.0 if config.schedule == "cosine" else 1.0,
        warmup_target=highest if warmup else None,
        warmup_steps=warmup,
    )
