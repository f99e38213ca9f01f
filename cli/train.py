"""`galip train`."""

import dataclasses
import json
import signal

import click

from galip_cli.options import finite
from galip_cli.quiet import quiet_imports
from galip_keras.training.config import TrainingConfig

# What sysexits.h calls EX_TEMPFAIL: nothing is wrong, run it again.
_UNFINISHED = 75

# Options whose names are not those of their settings.
_SPELLINGS = {
    "augmentation": "--augment",
    "deterministic": "--deterministic/--no-deterministic",
    "num_devices": "--devices",
}

# What is no setting of a run: where it is kept, and how this process takes part.
_PROCESS = [
    click.option(
        "--run",
        metavar="DIR",
        help="Run folder.  [default: runs/ and the name of the dataset]",
    ),
    click.option("--resume", is_flag=True, help="Go on with the run in the folder."),
    click.option(
        "--max-hours",
        type=click.FloatRange(min=0, min_open=True),
        metavar="HOURS",
        help="Stop after this time with everything saved and exit code 75: run again.",
    ),
    click.option(
        "--coordinator",
        metavar="HOST:PORT",
        envvar="GALIP_COORDINATOR",
        help="Several machines (JAX): the address of process 0. Needs --num-processes "
        "and --process-id, which SLURM's environment also provides.",
    ),
    click.option(
        "--num-processes",
        type=click.IntRange(min=1),
        envvar=["GALIP_NUM_PROCESSES", "SLURM_NTASKS"],
        help="How many processes train together.",
    ),
    click.option(
        "--process-id",
        type=click.IntRange(min=0),
        envvar=["GALIP_PROCESS_ID", "JOB_COMPLETION_INDEX", "SLURM_PROCID"],
        help="Which of them this is, from 0; Kubernetes' indexed jobs provide it, too.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Check everything, print the plan as JSON and train nothing. Nothing is "
        "written to the run folder.",
    ),
]


def _settings(command):
    """Add an option for every field of `TrainingConfig`, in their order."""
    for field in reversed(dataclasses.fields(TrainingConfig)):
        command = _option(field)(command)
    return command


def option_name(field):
    """The option for a field of `TrainingConfig`."""
    return _SPELLINGS.get(field.name, f"--{field.name.replace('_', '-')}")


def _option(field):
    setting = field.metadata["setting"]
    is_required = field.default is dataclasses.MISSING
    default = None if is_required else field.default
    # Click takes None for the value of a required option.
    details = {} if is_required else {"default": default}
    details["metavar"] = setting.unit or None
    if field.type.startswith("bool"):
        details = {"default": default, "is_flag": True}
    elif setting.choices:
        details["multiple"] = field.type.startswith("tuple")
        none = ["none"] if details["multiple"] else []
        details["type"] = click.Choice([*setting.choices, *none])
    elif field.type.startswith("int"):
        details["type"] = click.IntRange(setting.least, setting.most)
    elif field.type.startswith("float"):
        is_open = setting.above is not None
        least = setting.above if is_open else setting.least
        details["type"] = click.FloatRange(least, setting.most, min_open=is_open)
        details["callback"] = finite
    return click.option(
        option_name(field),
        field.name,
        required=is_required,
        help=setting.help + (f"  [default: {setting.unset}]" if setting.unset else ""),
        show_default=not setting.unset and default not in ((), None),
        **details,
    )


def _process(command):
    for option in reversed(_PROCESS):
        command = option(command)
    return command


@click.command()
@_settings
@_process
@click.pass_context
def train(context, **options):
    """Train a model on captioned images.

    Prints the run folder. In it are config.json, checkpoints/, samples/, metrics.jsonl,
    logs/ for TensorBoard and, when training ends, preset/. Ctrl-C stops with everything
    saved; the same command with --resume goes on.

    \b
    Examples:
      galip train --dataset folder:birds --steps 1000 --batch-size 8
      galip train --dataset toybirds --preset galip_tiny --steps 500
    """
    if options["epochs"] is not None and options["steps"] is not None:
        raise click.UsageError("--epochs and --steps exclude each other: give one.")
    _check_processes(context, options)
    with quiet_imports():
        from galip_keras.training import run as training
    # What is left out is for the recipe to say.
    given = {name: value for name, value in options.items() if _is_given(context, name)}
    outcome = training.train(**given)
    if isinstance(outcome, dict):
        click.echo(json.dumps(outcome, indent=2))
    elif outcome.collapse:
        raise click.ClickException(
            f"stopped at step {outcome.step} of {outcome.steps}, since training went "
            f"wrong: {outcome.collapse}. The checkpoints before that are in "
            f"{outcome.folder}, and the best one's preset if there was one."
        )
    elif outcome.signal is not None or outcome.is_late:
        _tell_of_stop(outcome)
    else:
        click.echo(outcome.folder)


def _is_given(context, name):
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def _check_processes(context, options):
    others = ("num_processes", "process_id")
    if options["coordinator"]:
        if None in (options[name] for name in others):
            raise click.UsageError(
                "--coordinator needs --num-processes and --process-id as well."
            )
        if options["process_id"] >= options["num_processes"]:
            raise click.UsageError("--process-id counts from 0 to --num-processes - 1.")
    # SLURM sets its variables for other reasons, too.
    elif any(
        context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        for name in others
    ):
        raise click.UsageError(
            "--num-processes and --process-id need --coordinator as well."
        )


def _tell_of_stop(outcome):
    cause = signal.Signals(outcome.signal).name if outcome.signal else "--max-hours"
    click.echo(
        f"Stopped by {cause} at step {outcome.step} of {outcome.steps}, all saved. "
        "The same command with --resume goes on.",
        err=True,
    )
    raise SystemExit(128 + outcome.signal if outcome.signal else _UNFINISHED)
