"""`galip train`."""

import json
import signal

import click

from galip_cli.options import CAPTIONS, DATA_DIR
from galip_cli.quiet import quiet_imports

# What sysexits.h calls EX_TEMPFAIL: nothing is wrong, run it again.
_UNFINISHED = 75

_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE


def _check_processes(context, settings):
    others = ("num_processes", "process_id")
    if settings["coordinator"]:
        if None in (settings[name] for name in others):
            raise click.UsageError(
                "--coordinator needs --num-processes and --process-id as well."
            )
        if settings["process_id"] >= settings["num_processes"]:
            raise click.UsageError("--process-id counts from 0 to --num-processes - 1.")
    # SLURM's variables are there for other reasons, too.
    elif any(context.get_parameter_source(x) is _COMMAND_LINE for x in others):
        raise click.UsageError(
            "--num-processes and --process-id need --coordinator as well."
        )


@click.command()
@click.option(
    "--dataset",
    required=True,
    metavar="DATASET",
    help="folder:PATH, your own pictures and captions, or toybirds, cub, coco, "
    "cc3m:PATH, cc12m:PATH, tfds:NAME, hf:NAME (`galip data list` tells more).",
)
@CAPTIONS
@click.option(
    "--allow-bad",
    is_flag=True,
    help="Go on where more than 1 % of the pictures cannot be used.",
)
@click.option(
    "--preset",
    default="galip_vit_base_patch32",
    show_default=True,
    help="The architecture to train (`galip info` lists them).",
)
@click.option(
    "--init",
    metavar="PRESET",
    help="Fine-tune: a preset folder, run folder or hub handle. Training begins with "
    "its weights, generator and discriminator, on its architecture and CLIP.",
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
    "--max-hours",
    type=click.FloatRange(min=0, min_open=True),
    metavar="HOURS",
    help="Stop after this time with everything saved, with exit code 75: run again.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Pictures a step, over all devices and processes.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="STEPS",
    help="Steps that make one update, where memory is too small for larger batches.",
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
    "--deterministic/--no-deterministic",
    default=None,
    help="The same run gives the same weights, bit for bit on a CPU, also when it is "
    "resumed; slower on a GPU.  [default: on a CPU]",
)
@click.option(
    "--generator-lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="Learning rate of the generator.  [default: that of the preset or "
    "architecture, for most the paper's 1e-4]",
)
@click.option(
    "--discriminator-lr",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="Learning rate of the discriminator.  [default: likewise, 4e-4]",
)
@click.option(
    "--base-batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="The batch size that the learning rates are meant for: scale them by the "
    "square root of the real one, times --accumulate, to it.",
)
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine"]),
    default="constant",
    show_default=True,
    help="Of the learning rates; cosine ends at 0 with the last step.",
)
@click.option(
    "--warmup-steps",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="STEPS",
    help="Steps in which the learning rates rise from 0.",
)
@click.option(
    "--average",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    metavar="PICTURES",
    help="Pictures after which weights count half in the averaged generator, which "
    "makes samples and preset; 0 for none.",
)
@click.option(
    "--similarity-weight",
    type=click.FloatRange(min=0),
    metavar="WEIGHT",
    help="Of the CLIP similarity in the generator's loss.  [default: that of the "
    "architecture, for most the paper's 4]",
)
@click.option(
    "--penalty-weight",
    type=click.FloatRange(min=0),
    metavar="WEIGHT",
    help="Of the gradient penalty in the discriminator's loss.  [default: likewise, 2]",
)
@click.option(
    "--range-weight",
    type=click.FloatRange(min=0),
    metavar="WEIGHT",
    help="Of the squared distance of pixels to their range in the generator's loss.  "
    "[default: likewise, 0]",
)
@click.option(
    "--augment",
    "augmentation",
    type=click.Choice(["color", "translation", "cutout"]),
    multiple=True,
    help="Change what the discriminator sees, for less than some thousand pictures; "
    "may be repeated.",
)
@click.option(
    "--hard-mismatches",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Fraction of pictures whose mismatched caption is their own with one detail "
    "falsified (English colours, sizes, shapes), instead of the next picture's.",
)
@click.option(
    "--freeze",
    type=click.Choice(["bridge", "prompts", "blocks", "extractor", "head"]),
    multiple=True,
    help="Leave a part of the networks as it is, when fine-tuning; may be repeated.",
)
@click.option(
    "--on-collapse",
    type=click.Choice(["continue", "rollback", "stop"]),
    default="continue",
    show_default=True,
    help="When training goes wrong: go on with a warning, go back to the best "
    "checkpoint with half the learning rates, or stop.",
)
@DATA_DIR
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
    "--report-every",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="STEPS",
    help="Steps from one report of the losses to the next.",
)
@click.option(
    "--evaluate-every",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="Measure as `galip evaluate` does, on the test split where there is one.",
)
@click.option(
    "--evaluate-images",
    type=click.IntRange(min=4),
    default=1000,
    show_default=True,
    metavar="N",
    help="Pictures of such an evaluation.",
)
@click.option("--wandb", is_flag=True, help="Report to Weights & Biases, too.")
@click.option(
    "--devices",
    "num_devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="GPUs of this machine that share a batch (TensorFlow, JAX).",
)
@click.option(
    "--coordinator",
    metavar="HOST:PORT",
    envvar="GALIP_COORDINATOR",
    help="Several machines (JAX): where process 0 is reached. With --num-processes and "
    "--process-id, which SLURM's environment also tells.",
)
@click.option(
    "--num-processes",
    type=click.IntRange(min=1),
    envvar=["GALIP_NUM_PROCESSES", "SLURM_NTASKS"],
    help="How many processes train together.",
)
@click.option(
    "--process-id",
    type=click.IntRange(min=0),
    envvar=["GALIP_PROCESS_ID", "JOB_COMPLETION_INDEX", "SLURM_PROCID"],
    help="Which of them this is, from 0; Kubernetes' indexed jobs tell it, too.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, print the plan as JSON and train nothing. Nothing is "
    "written to the run folder.",
)
@click.pass_context
def train(context, dry_run, **settings):
    """Train a model on pictures with captions.

    Prints the run folder. In it are config.json, checkpoints/, samples/, metrics.jsonl,
    logs/ for TensorBoard and, when training ends, preset/. Ctrl-C stops with everything
    saved; the same command with --resume goes on.

    \b
    Examples:
      galip train --dataset folder:birds --steps 1000 --batch-size 8
      galip train --dataset toybirds --preset galip_tiny --steps 500
    """
    if settings["epochs"] is not None and settings["steps"] is not None:
        raise click.UsageError("--epochs and --steps exclude each other: give one.")
    _check_processes(context, settings)
    with quiet_imports():
        from galip_keras import training
    result = training.train(dry_run=dry_run, **settings)
    if dry_run:
        click.echo(json.dumps(result, indent=2))
        return
    if result.collapse:
        raise click.ClickException(
            f"stopped at step {result.step} of {result.steps}, since training went "
            f"wrong: {result.collapse}. The checkpoints before that are in "
            f"{result.folder}, and the best one's preset if there was one."
        )
    if result.signal is not None or result.is_late:
        cause = signal.Signals(result.signal).name if result.signal else "--max-hours"
        click.echo(
            f"Stopped by {cause} at step {result.step} of {result.steps}, all saved. "
            "The same command with --resume goes on.",
            err=True,
        )
        raise SystemExit(128 + result.signal if result.signal else _UNFINISHED)
    click.echo(result.folder)
