"""`galip train`."""

import json
import signal

import click

from galip_cli.quiet import quiet_imports


@click.command()
@click.option(
    "--dataset",
    required=True,
    metavar="DATASET",
    help="folder:PATH, your own pictures and captions, or toybirds, cub, coco, "
    "cc3m:PATH, cc12m:PATH, tfds:NAME, hf:NAME (`galip data list` tells more).",
)
@click.option(
    "--captions",
    metavar="PATH",
    help="For cub: archive or folder of the captions of Reed et al.",
)
@click.option(
    "--allow-bad",
    is_flag=True,
    help="Go on where more than 1 % of the pictures cannot be used.",
)
@click.option(
    "--preset",
    default="galip_vit_base_patch32",
    show_default=True,
    help="What to train: an architecture (`galip info` lists them) or, to fine-tune, "
    "a preset folder, run folder or hub handle.",
)
@click.option(
    "--clip",
    metavar="SOURCE",
    help="CLIP of an architecture: a keras-hub preset, handle or preset folder, or "
    "`random` to try things out.  [default: the architecture's own]",
)
@click.option(
    "--run",
    metavar="DIR",
    help="Run folder.  [default: runs/ and the name of the data set]",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the run folder.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the data.  [default: 100, without --steps]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Stop exactly at this step.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Pictures a step.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]),
    default="float32",
    show_default=True,
    help="Of the computation; weights stay float32.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Of the first weights, the noise and the order of the data.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    help="Where prepared data sets live.  [default: TFDS_DATA_DIR, else "
    "~/tensorflow_datasets]",
)
@click.option(
    "--save-every",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="STEPS",
    help="Steps from one checkpoint to the next; two minutes at most.",
)
@click.option(
    "--sample-every",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="STEPS",
    help="Steps from one grid of samples to the next.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, print the plan as JSON and train nothing. No run folder is "
    "written.",
)
def train(dry_run, **settings):
    """Train a model on pictures with captions.

    Prints the run folder. In it are config.json, checkpoints/, samples/, logs/ for
    TensorBoard and, when training ends, preset/. Ctrl-C stops with everything saved;
    the same command with --resume goes on.

    \b
    Examples:
      galip train --dataset folder:birds --steps 1000 --batch-size 8
      galip train --dataset toybirds --preset galip_tiny --steps 500
    """
    if settings["epochs"] is not None and settings["steps"] is not None:
        raise click.UsageError("--epochs and --steps exclude each other: give one.")
    with quiet_imports():
        from galip_keras import training
    result = training.train(dry_run=dry_run, **settings)
    if dry_run:
        click.echo(json.dumps(result, indent=2))
        return
    if result.signal is not None:
        name = signal.Signals(result.signal).name
        click.echo(
            f"Stopped by {name} at step {result.step} of {result.steps}, all saved. "
            "The same command with --resume goes on.",
            err=True,
        )
        raise SystemExit(128 + result.signal)
    click.echo(result.folder)
