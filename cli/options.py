"""Options that several commands have."""

import importlib.util
import math

import click

from galip_keras.datasets import FOLDER_OPTIONS
from galip_keras.training.config import settings


def finite(context, parameter, value):
    """Refuse what passes range checks and is no number to compute with."""
    if value is not None and not math.isfinite(value):
        raise click.UsageError(f"{parameter.opts[0]} must be finite, not {value}.")
    return value


def require(what, modules, extra):
    """Check that optional libraries are installed.

    Args:
        what: string. What needs them, for the message.
        modules: sequence of strings. The modules to import.
        extra: string. The extra of this package that installs them.

    Raises:
        click.ClickException: with the command that installs them.
    """
    missing = [x for x in modules if not importlib.util.find_spec(x)]
    if missing:
        raise click.ClickException(
            f"{what} needs {', '.join(missing)}: pip install 'galip-keras[{extra}]'."
        )


DATA_DIR = click.option(
    "--data-dir",
    metavar="DIR",
    help="Where prepared datasets live.  [default: TFDS_DATA_DIR, else "
    "~/tensorflow_datasets]",
)


def captioning(command):
    """Add the options that say where the captions of a dataset are."""
    for name in reversed(("captions", *FOLDER_OPTIONS)):
        setting = settings()[name]
        option = click.option(
            f"--{name.replace('_', '-')}",
            metavar=setting.unit or None,
            type=click.Choice(setting.choices) if setting.choices else None,
            help=setting.help,
        )
        command = option(command)
    return command


MODEL = click.option(
    "--model",
    default="toybirds",
    show_default=True,
    metavar="MODEL",
    help="toybirds, galip_coco, galip_cc12m, a run folder, preset folder, hub handle "
    "or architecture.",
)
TRUNCATION = click.option(
    "--truncation",
    type=click.FloatRange(0, 10),
    callback=finite,
    default=1.0,
    show_default=True,
    help="Factor of the noise: less than 1 gives more typical, less varied images.",
)
PRECISION = click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16", "float16", "auto")),
    default="float32",
    show_default=True,
    help="What images are computed in. auto takes bfloat16 where the backend uses the "
    "processor's units for it and trial images have a PSNR of at least 40 dB against "
    "float32.",
)
OUT = click.option(
    "--out",
    default="samples",
    show_default=True,
    metavar="DIR",
    help="Folder for the images.",
)
