"""`galip evaluate`."""

import json

import click

from galip_cli.options import CAPTIONS, DATA_DIR
from galip_cli.quiet import quiet_imports

_METRICS = (
    "fid",
    "kid",
    "cmmd",
    "clip-score",
    "r-precision",
    "precision-recall",
    "diversity",
)
_FEATURES = (
    "clip",
    "inception",
    "inception-clean",
    "inception-torchvision",
    "inception-keras",
    "toybirds",
)


def _names(context, parameter, value):
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in _METRICS:
            raise click.BadParameter(
                f"{name!r} is none of {', '.join(_METRICS)}.", context, parameter
            )
    if not names:
        raise click.BadParameter("name at least one.", context, parameter)
    return names


@click.command()
@click.option(
    "--model",
    metavar="MODEL",
    help="A preset, run folder, preset folder, hub handle or architecture.  "
    "[default: toybirds, without --images]",
)
@click.option(
    "--dataset",
    metavar="DATASET",
    help="Where captions and real pictures come from (`galip data list`).",
)
@click.option("--split", help="Of the data set.  [default: test, where there is one]")
@click.option(
    "--images",
    multiple=True,
    metavar="FOLDER",
    help="Pictures made elsewhere, in place of --model; given twice, the second ones "
    "are the real ones, in place of --dataset.",
)
@click.option(
    "--metrics",
    callback=_names,
    metavar="NAMES",
    help=f"Some of {', '.join(_METRICS)}.  [default: all that can be had]",
)
@click.option(
    "--features",
    type=click.Choice(_FEATURES),
    default="clip",
    show_default=True,
    metavar="NETWORK",
    help="By what fid, kid and precision-recall compare pictures: "
    f"{', '.join(_FEATURES)}.",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="The weights of an Inception.  [default: where PyTorch keeps downloads]",
)
@click.option(
    "--scorer",
    metavar="PRESET",
    help="Another CLIP, a keras-hub preset, by which captions are scored, too.",
)
@click.option(
    "--num-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Pictures to judge.  [default: as many as the split has]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of the first picture; the next ones count on.",
)
@click.option(
    "--statistics",
    metavar="FILE",
    help="Mean and covariance of the real pictures, an .npz file of mu and sigma.",
)
@click.option(
    "--save-statistics",
    metavar="FILE",
    help="Write mean and covariance of the real pictures.",
)
@click.option("--out", metavar="DIR", help="Write report.md and report.json there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@DATA_DIR
@CAPTIONS
def evaluate(images, model, as_json, **settings):
    """Measure a model, or pictures from anywhere.

    Each figure is told with what it was measured by, how many pictures there were, how
    they were resized, and with what it may be compared.

    \b
    Examples:
      galip evaluate --dataset toybirds --num-images 500
      galip evaluate --images samples --images photos --metrics fid,kid \\
          --features inception
    """
    if len(images) > 2:
        raise click.UsageError("--images is given once or twice: made ones, real ones.")
    if images and model:
        raise click.UsageError("--model and --images exclude each other: give one.")
    if len(images) == 2 and settings["dataset"]:
        raise click.UsageError("--dataset and two --images exclude each other.")
    if not images and not settings["dataset"]:
        raise click.UsageError("give --dataset: a model needs captions.")
    with quiet_imports():
        import keras

        from galip_keras.metrics import evaluate as evaluation
    # An architecture begins with random weights: the same ones every time.
    keras.utils.set_random_seed(0)
    made, real = (*images, None, None)[:2]
    report = evaluation.evaluate(
        model if images else model or "toybirds", images=made, real=real, **settings
    )
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for figure in report["figures"]:
        by = evaluation.by(figure)
        value = f"{figure['value']:.4g}"
        count = f"{figure['num_images']:,} pictures"
        click.echo(f"{figure['metric']:<12} {value:>10}  by {by}, {count}")
    for line in evaluation.notes(report):
        click.echo(f"- {line}", err=True)
