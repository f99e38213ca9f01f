"""The settings of a training run: which there are, and whether they can work."""

import json
import math
import os
import tempfile
from pathlib import Path

from galip_keras import augmentation
from galip_keras.backend import devices
from galip_keras.journal import check_wandb
from galip_keras.loading import CONFIG, RATES, WEIGHTS
from galip_keras.text_to_image import ARCHITECTURES, BUNDLED

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "cosine")
ON_COLLAPSE = ("continue", "rollback", "stop")

# What can be frozen, by network.
PARTS = {
    "bridge": ("generator", "bridge_predictor"),
    "prompts": ("generator", "prompt_predictor"),
    "blocks": ("generator", "conv", "generator_blocks", "to_rgb"),
    "extractor": ("discriminator", "tap_blocks", "narrow_block"),
    "head": ("discriminator", "head_conv_1", "head_conv_2"),
}

# A run that is resumed goes on as it began. Other settings, such as its length, may
# change.
_FIXED = (
    "dataset",
    "preset",
    "init",
    "clip",
    "batch_size",
    "accumulate",
    "precision",
    "seed",
    "captions",
    "average",
    *WEIGHTS,
    "augmentation",
    "freeze",
)


def absolute(source):
    """A source with its path made absolute, where it is one that exists."""
    if source in (*ARCHITECTURES, *BUNDLED, "random"):
        return source
    path = os.path.expanduser(str(source))
    return os.path.abspath(path) if os.path.exists(path) else str(source)


def absolute_source(dataset):
    name, colon, source = str(dataset).partition(":")
    return f"{name}:{absolute(source)}" if colon and source else name


def absolute_path(path):
    return str(Path(path).expanduser().absolute()) if path else None


def dataset_name(dataset):
    name, _, source = str(dataset).partition(":")
    return Path(source).expanduser().resolve().name if name == "folder" else name


def check_settings(settings):
    if settings["epochs"] is not None and settings["steps"] is not None:
        raise ValueError("give epochs or steps, not both")
    # The mismatched sentence of a picture is that of its neighbour in the batch.
    least = {"batch_size": 2, "average": 0, "warmup_steps": 0}
    others = ("epochs", "steps", "accumulate", "base_batch_size", "num_devices")
    every = ("save_every", "sample_every", "report_every", "evaluate_every")
    for name, value in {**dict.fromkeys((*others, *every), 1), **least}.items():
        if settings[name] is not None and settings[name] < value:
            raise ValueError(f"{name} must be at least {value}, not {settings[name]}")
    for name in WEIGHTS:
        if not 0 <= settings[name] < math.inf:
            raise ValueError(f"{name} must be 0 or more, not {settings[name]}")
    if not 0 <= settings["hard_mismatches"] <= 1:
        raise ValueError(
            f"hard_mismatches must be from 0 to 1, not {settings['hard_mismatches']}"
        )
    for name in RATES:
        if not 0 < settings[name] < math.inf:
            raise ValueError(f"{name} must be more than 0, not {settings[name]}")
    for name, known in (
        ("precision", PRECISIONS),
        ("schedule", SCHEDULES),
        ("on_collapse", ON_COLLAPSE),
        ("augmentation", augmentation.KINDS),
        ("freeze", tuple(PARTS)),
    ):
        values = settings[name]
        unknown = {values} if isinstance(values, str) else set(values)
        if unknown - set(known):
            raise ValueError(f"{name} must be one of {', '.join(known)}")
    shares = settings["num_devices"] * devices.process()[1]
    if settings["batch_size"] % shares:
        raise ValueError(
            f"{shares} devices cannot share {settings['batch_size']} pictures a step: "
            "batch_size must be a multiple"
        )
    if settings["wandb"]:
        check_wandb()


def make_folder(folder, what="the run folder", option="--run"):
    """Makes a folder, or tells which option names another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"{what} {folder} cannot be written ({error.strerror}): "
            f"give another {option}"
        ) from error


def check_folder(folder, settings, resume):
    """Makes sure that nothing in the run folder would be lost."""
    if not folder.is_dir() or next(folder.iterdir(), None) is None:
        return
    if not resume:
        raise ValueError(
            f"the run folder {folder} is not empty: go on with the run in it with "
            "--resume, or give another --run"
        )
    _check_unchanged(folder, settings)


def _check_unchanged(folder, settings):
    try:
        old = json.loads((folder / CONFIG).read_text())
        changes = [
            f"{name} was {old[name]} and is {settings[name]}"
            for name in _FIXED
            if old[name] != settings[name]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} holds no run to resume: {CONFIG} is missing or damaged"
        ) from error
    if changes:
        raise ValueError(
            f"the run in {folder} has other settings: {'; '.join(changes)}. Resume it "
            "with its own, or give another --run"
        )
