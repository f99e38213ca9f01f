"""`galip evaluate`."""

import json

import click

from galip_cli.options import DATA_DIR, PRECISION, captioning
from galip_cli.quiet import quiet_imports
from galip_keras.metrics.config import ALIASES, FEATURES, METRICS, READERS


def _names(context, parameter, value):
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in METRICS:
            raise click.BadParameter(
                f"{name!r} is none of {', '.join(METRICS)}.", context, parameter
            )
    if not names:
        raise click.BadParameter("name at least one.", context, parameter)
    return names


@click.command()
@click.option(
    "--model",
    metavar="MODEL",
    help="toybirds, galip_coco, galip_cc12m, a run folder, preset folder, hub handle "
    "or architecture.  "
    "[default: toybirds, without --images]",
)
@click.option(
    "--dataset",
    metavar="DATASET",
    help="The source of captions and real images (`galip data list`).",
)
@click.option(
    "--split", help="The split of the dataset.  [default: test, if there is one]"
)
@click.option(
    "--images",
    multiple=True,
    metavar="FOLDER",
    help="Images to evaluate instead of a --model. Given twice, the second folder "
    "holds real images to compare with instead of those of a --dataset.",
)
@click.option(
    "--reader",
    type=click.Choice(READERS),
    default="training",
    show_default=True,
    metavar="NAME",
    help="How the images of folders are read: as for training, or as by pytorch-fid, "
    "without transparency and EXIF rotation.",
)
@click.option(
    "--metrics",
    callback=_names,
    metavar="NAMES",
    help=f"Some of {', '.join(METRICS)}.  [default: all that can be computed]",
)
@click.option(
    "--features",
    type=click.Choice((*FEATURES, *ALIASES)),
    default="clip",
    show_default=True,
    metavar="NETWORK",
    help="The network that fid, kid and precision-recall compare images by: "
    f"{', '.join(FEATURES)}; fid-inception is inception.",
)
@click.option(
    "--weights",
    metavar="FILE",
    help="The Inception weights.  [default: where PyTorch keeps downloads, or fetched]",
)
@click.option(
    "--scorer",
    metavar="CLIP",
    help="A second CLIP that scores images against captions: a keras-hub preset, or "
    "one of Hugging Face such as openai/clip-vit-large-patch14.",
)
@click.option(
    "--num-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many images to evaluate.  [default: the size of the split or folder]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the first image. The next images count up from it.",
)
@click.option(
    "--statistics",
    metavar="FILE",
    help="Mean and covariance of real images, an .npz file with mu and sigma.",
)
@click.option(
    "--save-statistics",
    metavar="FILE",
    help="Write the mean and covariance of the real images here.",
)
@PRECISION
@click.option("--out", metavar="DIR", help="Write report.md and report.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@DATA_DIR
@captioning
def evaluate(images, model, as_json, **settings):
    """Evaluate a model, or images from anywhere.

    Each figure comes with the network and the number of images that it was measured
    with, how the images were resized, and what it may be compared with.

    \b
    Examples:
      galip evaluate --dataset toybirds --num-images 500
      galip evaluate --images samples --images photos --metrics fid,kid \\
          --features inception
    """
    if len(images) > 2:
        raise click.UsageError("give --images once or twice: generated, then real.")
    if images and model:
        raise click.UsageError("--model and --images exclude each other: give one.")
    if len(images) == 2 and settings["dataset"]:
        raise click.UsageError("--dataset and two --images exclude each other.")
    if not images and not settings["dataset"]:
        raise click.UsageError("give --dataset: a model needs captions.")
    with quiet_imports():
        import keras

        from galip_keras.metrics.evaluate import evaluate
        from galip_keras.metrics.report import measured_by, notes
    # The random weights of an architecture are the same every time.
    keras.utils.set_random_seed(0)
    made, real = (*images, None, None)[:2]
    model = model if images else model or "toybirds"
    report = evaluate(model, images=made, real=real, **settings)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for figure in report["figures"]:
        value = f"{figure['value']:.4g}"
        count = f"{figure['num_images']:,} images"
        click.echo(
            f"{figure['metric']:<12} {value:>10}  by {measured_by(figure)}, {count}"
        )
    for line in notes(report):
        click.echo(f"- {line}", err=True)
