"""Options that several commands have."""

import click

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
