"""Options that several commands have."""

import importlib.util
import math

import click


def _number(context, parameter, value):
    # Which lies in every range.
    if math.isnan(value):
        raise click.UsageError(f"{parameter.opts[0]} is not a number.")
    return value


def require(what, modules, extra):
    """Refuses what needs libraries that are not installed.

    Args:
        what: string, for the message.
        modules: strings. What is imported.
        extra: string. What installs them.

    Raises:
        click.ClickException: with the line to install them by.
    """
    missing = [x for x in modules if not importlib.util.find_spec(x)]
    if missing:
        raise click.ClickException(
            f"{what} needs {', '.join(missing)}: pip install 'galip-keras[{extra}]'."
        )


DATA_DIR = click.option(
    "--data-dir",
    metavar="DIR",
    help="Where prepared data sets live.  [default: TFDS_DATA_DIR, else "
    "~/tensorflow_datasets]",
)
CAPTIONS = click.option(
    "--captions",
    metavar="PATH",
    help="For cub: archive or folder of the captions of Reed et al.",
)
MODEL = click.option(
    "--model",
    default="toybirds",
    show_default=True,
    metavar="MODEL",
    help="A preset, run folder, preset folder, hub handle or architecture.",
)
TRUNCATION = click.option(
    "--truncation",
    type=click.FloatRange(0, 10),
    callback=_number,
    default=1.0,
    show_default=True,
    help="Factor of the noise: less than 1 gives more typical, less varied pictures.",
)
OUT = click.option(
    "--out",
    default="samples",
    show_default=True,
    metavar="DIR",
    help="Where the pictures go.",
)
