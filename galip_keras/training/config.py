"""The settings of a training run, each said once.

The options of `galip train`, the checks, `config.json`, the plan and the table in
docs/training.md are made from the fields of `TrainingConfig`. This module imports the
standard library alone, so that a command line can be built from it at no cost.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from galip_keras.training.recipes import RECIPES
from galip_keras.training.setting import Setting
from galip_keras.training.setting import setting as _setting

DEFAULT_EPOCHS = 100


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything needed to repeat a training run, apart from where it is kept.

    `settings()` describes each field; docs/training.md has them as a table.

    Args:
        dataset: string. The data to train on, as `galip_keras.datasets.prepare` takes
            it, such as `"folder:birds"`.
        **kwargs: the other fields, by name.

    Raises:
        ValueError: for a value that cannot work.

    Example:

    ```python
    config = galip_keras.TrainingConfig("toybirds", preset="galip_tiny", steps=1000)
    ```
    """

    # === Data ===
    dataset: str = _setting(
        dataclasses.MISSING,
        "folder:PATH for your own images and captions, or toybirds, cub, coco, "
        "cc3m:PATH, cc12m:PATH, tfds:NAME, hf:NAME (see `galip data list`).",
        unit="DATASET",
        is_fixed=True,
    )
    captions: str | None = _setting(
        None,
        "For cub and coco: an archive or folder of captions, or paper for those that "
        "GALIP's authors share, which are fetched.",
        unit="PATH|paper",
        is_fixed=True,
    )
    image_column: str | None = _setting(
        None,
        "For folder: the column of image names in its tables.",
        unit="NAME",
        unset="found by its name",
        is_fixed=True,
    )
    caption_column: str | None = _setting(
        None,
        "For folder: the column of captions in its tables.",
        unit="NAME",
        unset="found by its name",
        is_fixed=True,
    )
    caption: str | None = _setting(
        None,
        "For folder: the caption of all images, for images without captions.",
        unit="TEXT",
        is_fixed=True,
    )
    caption_from: str | None = _setting(
        None,
        "For folder: take the name of the subfolder of an image as its caption.",
        choices=("folder",),
        is_fixed=True,
    )
    allow_bad: bool = _setting(
        False, "Go on even if more than 1 % of the images cannot be used."
    )
    allow_changed_data: bool = _setting(
        False,
        "Resume a run even if its images or captions have changed since it began.",
    )
    data_dir: str | None = _setting(
        None,
        "Where prepared datasets live.",
        unit="DIR",
        unset="TFDS_DATA_DIR, else ~/tensorflow_datasets",
    )

    # === Model ===
    preset: str = _setting(
        "galip_vit_base_patch32",
        "The architecture to train (`galip info` lists them).",
        is_fixed=True,
    )
    init: str | None = _setting(
        None,
        "Fine-tune a preset folder, run folder or hub handle: start from its weights, "
        "generator and discriminator, with its architecture and CLIP.",
        unit="PRESET",
        is_fixed=True,
    )
    recipe: str | None = _setting(
        None,
        "Where the settings that are left out come from: few-shot is for fine-tuning "
        "on a few hundred images, full for all else.",
        choices=tuple(RECIPES),
        unset="full",
        is_fixed=True,
    )
    clip: str | None = _setting(
        None,
        "CLIP of an architecture: a keras-hub preset, handle or preset folder, or "
        "`random` to try things out.",
        unit="SOURCE",
        unset="the architecture's own",
        is_fixed=True,
    )
    freeze: tuple[str, ...] | None = _setting(
        None,
        "Part of the networks to leave untrained when fine-tuning; may be repeated.",
        choices=("bridge", "prompts", "blocks", "extractor", "head"),
        unset="none, or as the recipe says",
        is_fixed=True,
    )

    # === Length ===
    epochs: int | None = _setting(
        None,
        "Passes over the data.",
        least=1,
        unset=f"{DEFAULT_EPOCHS}, unless steps are given",
    )
    steps: int | None = _setting(None, "Stop after exactly this many steps.", least=1)

    # === Batches and precision ===
    batch_size: int = _setting(
        32,
        # The mismatched caption of an image is that of its neighbor in the batch.
        "Images per step, over all devices and processes.",
        least=2,
        is_fixed=True,
    )
    accumulate: int = _setting(
        1,
        "Steps per update, if memory is too small for larger batches.",
        least=1,
        unit="STEPS",
        is_fixed=True,
    )
    precision: str = _setting(
        "float32",
        "Precision of the computation; weights stay float32.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
        is_fixed=True,
    )
    seed: int = _setting(
        0,
        "Seed of the initial weights, the noise and the order of the data.",
        least=0,
        most=2**31 - 1,
        is_fixed=True,
    )
    deterministic: bool | None = _setting(
        None,
        "Make every run with these settings end in the same weights, bit for bit on a "
        "CPU, even if it is resumed; slower on a GPU.",
        unset="on a CPU",
    )
    num_devices: int = _setting(
        1, "GPUs of this machine that share a batch (TensorFlow, JAX).", least=1
    )

    # === Optimization ===
    generator_lr: float | None = _setting(
        None,
        "Learning rate of the generator.",
        above=0,
        unit="RATE",
        unset="that of the preset or architecture, usually the paper's 1e-4",
    )
    discriminator_lr: float | None = _setting(
        None,
        "Learning rate of the discriminator.",
        above=0,
        unit="RATE",
        unset="likewise, usually 4e-4",
    )
    base_batch_size: int | None = _setting(
        None,
        "The batch size that the learning rates are meant for. They are multiplied by "
        "the square root of (images per update / this).",
        least=1,
        unit="N",
    )
    schedule: str = _setting(
        "constant",
        "Schedule of the learning rates; cosine reaches 0 at the last step.",
        choices=("constant", "cosine"),
    )
    warmup_steps: int = _setting(
        0, "Steps over which the learning rates rise from 0.", least=0, unit="STEPS"
    )
    average: int = _setting(
        10_000,
        "Half-life, in images, of the averaged generator, which makes the samples and "
        "the preset; 0 for none.",
        least=0,
        unit="IMAGES",
        is_fixed=True,
    )
    similarity_weight: float | None = _setting(
        None,
        "Weight of the CLIP similarity in the generator's loss.",
        least=0,
        unit="WEIGHT",
        unset="that of the preset or architecture, usually the paper's 4",
        is_fixed=True,
    )
    penalty_weight: float | None = _setting(
        None,
        "Weight of the gradient penalty in the discriminator's loss.",
        least=0,
        unit="WEIGHT",
        unset="likewise, usually 2",
        is_fixed=True,
    )
    range_weight: float | None = _setting(
        None,
        "Weight, in the generator's loss, of the squared distance of pixels from "
        "[-1, 1].",
        least=0,
        unit="WEIGHT",
        unset="likewise, usually 0",
        is_fixed=True,
    )
    energy_weight: float | None = _setting(
        None,
        "Weight, in the generator's loss, of the energy score of two images of a "
        "caption, which keeps them as different as real ones.",
        least=0,
        unit="WEIGHT",
        unset="likewise, usually 0",
        is_fixed=True,
    )
    augmentation: tuple[str, ...] | None = _setting(
        None,
        "Augment what the discriminator sees, for small datasets: a few thousand "
        "images at most. May be repeated.",
        choices=("color", "translation", "cutout"),
        unset="none, or as the recipe says",
        is_fixed=True,
    )
    hard_mismatches: float = _setting(
        0.0,
        "Share of images whose mismatched caption is their own, made wrong in a detail "
        "(English colors, sizes, shapes), instead of the next image's.",
        least=0,
        most=1,
        unit="SHARE",
        is_fixed=True,
    )
    on_collapse: str | None = _setting(
        None,
        "What to do when training goes wrong: go on with a warning, go back to the "
        "best checkpoint with half the learning rates, or stop.",
        choices=("continue", "rollback", "stop"),
        unset="continue, or as the recipe says",
    )

    # === Reports ===
    save_every: int = _setting(
        100,
        "Steps between checkpoints; there is one every two minutes in any case.",
        least=1,
        unit="STEPS",
    )
    sample_every: int = _setting(
        100, "Steps between grids of samples.", least=1, unit="STEPS"
    )
    report_every: int = _setting(
        50, "Steps between reports of the losses.", least=1, unit="STEPS"
    )
    evaluate_every: int | None = _setting(
        None,
        "Steps between evaluations, as `galip evaluate` makes them, on the test split "
        "if there is one.",
        least=1,
        unit="STEPS",
        unset="never",
    )
    evaluate_images: int = _setting(1000, "Images per evaluation.", least=4, unit="N")
    wandb: bool = _setting(False, "Report to Weights & Biases as well.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type.startswith("tuple") and value is not None:
                # The order in which options are given means nothing.
                value = (value,) if isinstance(value, str) else tuple(sorted(value))
                value = () if value == ("none",) else value
            elif field.type.startswith("str") and value is not None:
                value = str(value)
            object.__setattr__(self, field.name, value)
            field.metadata["setting"].check(field.name, value)
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", DEFAULT_EPOCHS)

    @property
    def dataset_name(self) -> str:
        """A short name of the dataset: of a folder, the last part of its path."""
        name, _, source = self.dataset.partition(":")
        return Path(source).expanduser().resolve().name if name == "folder" else name

    @property
    def images_per_update(self) -> int:
        """Images whose gradients make an update of the weights."""
        return self.batch_size * self.accumulate

    def replace(self, **changes: Any) -> TrainingConfig:
        """The same settings, some of them changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, as in `config.json`."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def changes_from(self, content: Mapping[str, Any]) -> list[str]:
        """How the fixed settings differ from those of an earlier configuration.

        Args:
            content: mapping. What `to_dict` returned earlier, perhaps in another
                version of this package. Settings that it lacks are not compared.

        Returns:
            A list of strings, a setting each.
        """
        now = self.to_dict()
        return [
            f"{name} was {content[name]} and is {now[name]}"
            for name, setting in settings().items()
            if setting.is_fixed and name in content and content[name] != now[name]
        ]


def settings() -> dict[str, Setting]:
    """The `Setting` of every field of `TrainingConfig`, by name."""
    return {
        field.name: field.metadata["setting"]
        for field in dataclasses.fields(TrainingConfig)
    }


def check_names(names: Mapping[str, Any]) -> None:
    """Raise a TypeError for names of no setting, with the one that was meant."""
    for name in names:
        if name not in settings():
            meant = difflib.get_close_matches(name, settings(), 1)
            hint = f": did you mean {meant[0]!r}?" if meant else ""
            raise TypeError(f"there is no setting {name!r}{hint}")
