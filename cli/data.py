"""`galip data`."""

import json
from pathlib import Path

import click

from galip_cli.group import HelpfulGroup
from galip_cli.options import CAPTIONS, DATA_DIR
from galip_cli.quiet import quiet_imports
from galip_cli.tables import definitions


@click.group(cls=HelpfulGroup, invoke_without_command=True)
@click.pass_context
def data(ctx):
    """List, prepare and look at data sets.

    \b
    Examples:
      galip data list
      galip data prepare toybirds
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@data.command("list")
@DATA_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(data_dir, as_json):
    """List the data sets: sizes, licences, and what is prepared.

    \b
    Examples:
      galip data list
      galip data list --data-dir /data --json
    """
    from galip_keras import datasets

    rows = {
        name: {
            "description": entry.description,
            "pictures": entry.pictures,
            "download": entry.download,
            "license": entry.license,
            "prepared": datasets.prepared(name, data_dir),
        }
        for name, entry in datasets.DATASETS.items()
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    lines = []
    for name, row in rows.items():
        lines += [
            (name, row["description"]),
            (
                "",
                f"pictures: {row['pictures']}; download: {row['download']}; "
                f"licence: {row['license']}",
            ),
            *(("", f"prepared in {path}") for path in row["prepared"]),
        ]
    click.echo(definitions(lines))


@data.command()
@click.argument("name")
@DATA_DIR
@CAPTIONS
@click.option(
    "--allow-bad",
    is_flag=True,
    help="Go on where more than 1 % of the pictures cannot be used.",
)
@click.option(
    "--num-workers",
    type=click.IntRange(1, 64),
    help="Threads that decode pictures.  [default: the cores]",
)
@click.option(
    "--beam-runner",
    metavar="RUNNER",
    help="For cc3m and cc12m: prepare on Apache Beam, as with DirectRunner.",
)
def prepare(name, **settings):
    """Prepare the data set NAME, as `galip train` would on first use.

    Prints the folder of the records. What was left out, and why, is in left_out.tsv
    there. Interrupted, it leaves nothing behind but finished downloads.

    \b
    Examples:
      galip data prepare toybirds
      galip data prepare cub:CUB_200_2011.tgz --captions birds.zip
    """
    with quiet_imports():
        from galip_keras import datasets
    builder = datasets.prepare(name, **settings)
    for line in datasets.report(builder):
        click.echo(line, err=True)
    click.echo(builder.data_path)


@data.command()
@click.argument("name")
@DATA_DIR
@CAPTIONS
@click.option("--split", default="train", show_default=True)
@click.option(
    "--num-images",
    type=click.IntRange(1, 1000),
    default=16,
    show_default=True,
    help="Pictures on the sheet.",
)
@click.option(
    "--out",
    default="sheet.png",
    show_default=True,
    type=click.Path(dir_okay=False, writable=True),
    help="Where the sheet goes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(name, data_dir, captions, split, num_images, out, as_json):
    """Count the prepared data set NAME and draw a sheet of it with captions.

    \b
    Examples:
      galip data inspect toybirds
      galip data inspect folder:birds --split test --out test.png
    """
    with quiet_imports():
        from galip_keras import datasets
        from galip_keras.datasets.sheet import contact_sheet
    builder = datasets.find(name, data_dir, captions=captions or "")
    if not builder.data_path.exists():
        raise click.ClickException(
            f"{name} is not prepared: galip data prepare {name} does it."
        )
    sheet = contact_sheet(builder, split, num_images)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    facts = {
        "records": str(builder.data_path),
        "bytes": int(builder.info.dataset_size),
        "pictures": {
            split: info.num_examples for split, info in builder.info.splits.items()
        },
        "license": builder.license or "not known",
        "report": datasets.report(builder),
        "sheet": out,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {split}" for split, count in value.items())
        for line in value if isinstance(value, list) else [value]:
            click.echo(f"{key:9} {line}")
