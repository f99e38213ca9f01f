"""`galip data`."""

import json
from pathlib import Path

import click

from galip_cli.group import HelpfulGroup
from galip_cli.options import DATA_DIR, captioning
from galip_cli.quiet import quiet_imports
from galip_cli.tables import definitions
from galip_keras.downloads.sources import SOURCES, size


@click.group(cls=HelpfulGroup, invoke_without_command=True)
@click.pass_context
def data(ctx):
    """List, prepare and inspect datasets.

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
    """List the datasets: sizes, licences, and which are prepared.

    \b
    Examples:
      galip data list
      galip data list --data-dir /data --json
    """
    from galip_keras import datasets

    rows = {
        name: {
            "description": entry.description,
            "pictures": entry.num_images,
            "download": entry.download,
            "license": entry.license,
            "prepared": datasets.prepared(name, data_dir),
            "paper": _file(entry.paper),
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
                f"images: {row['pictures']}; download: {row['download']}; "
                f"licence: {row['license']}",
            ),
            *(("", f"prepared in {path}") for path in row["prepared"]),
        ]
        if file := row["paper"]:
            place = "here" if file["here"] else "fetched on first use"
            about = f"{size(file['megabytes'])}; {file['license']}; {place}"
            lines.append(("", f"--captions paper: {file['file']}, {about}"))
    click.echo(definitions(lines))


def _file(name):
    """Facts about a file that can be fetched."""
    from galip_keras.downloads.fetch import path_of

    if not name:
        return None
    source = SOURCES[name]
    return {
        "file": name,
        "megabytes": source.megabytes,
        "license": source.license,
        "address": source.page,
        "here": path_of(name).is_file(),
    }


@data.command()
@click.argument("name")
@DATA_DIR
@captioning
@click.option(
    "--allow-bad",
    is_flag=True,
    help="Continue even if more than 1 % of the images cannot be used.",
)
@click.option(
    "--num-workers",
    type=click.IntRange(1, 64),
    help="Threads that decode images.  [default: the number of cores]",
)
@click.option(
    "--beam-runner",
    metavar="RUNNER",
    help="For cc3m and cc12m: prepare on Apache Beam, for example DirectRunner.",
)
def prepare(name, beam_runner, **settings):
    """Prepare the dataset NAME, as `galip train` does on first use.

    Prints the folder of the records. Its left_out.tsv lists the images that were left
    out, and why. If it is interrupted, only finished downloads stay.

    \b
    Examples:
      galip data prepare toybirds
      galip data prepare folder:birds --caption "a photo of a bird"
    """
    with quiet_imports():
        from galip_keras import datasets

        # This loads TensorFlow.
        builder = datasets.find(name, **settings)
    builder = builder.prepare(beam_runner)
    for line in datasets.report(builder):
        click.echo(line, err=True)
    click.echo(builder.data_path)


@data.command()
@click.argument("name")
@DATA_DIR
@captioning
@click.option(
    "--split", default="train", show_default=True, help="The split to draw from."
)
@click.option(
    "--num-images",
    type=click.IntRange(1, 1000),
    default=16,
    show_default=True,
    help="Images on the sheet.",
)
@click.option(
    "--out",
    default="sheet.png",
    show_default=True,
    type=click.Path(dir_okay=False, writable=True),
    help="Where to write the sheet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(name, data_dir, split, num_images, out, as_json, **options):
    """Count the images of a prepared dataset NAME, and draw a sheet of some.

    \b
    Examples:
      galip data inspect toybirds
      galip data inspect folder:birds --split test --out test.png
    """
    with quiet_imports():
        from galip_keras import datasets
        from galip_keras.datasets.sheet import contact_sheet

        builder = datasets.find(name, data_dir, **options)
    if not builder.data_path.exists():
        same = " with the same options" if any(options.values()) else ""
        raise click.ClickException(
            f"{name} is not prepared: run galip data prepare {name}{same}."
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
        "license": builder.license or "unknown",
        "report": datasets.report(builder),
        "sheet": out,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    counts = [f"{count} {split}" for split, count in facts["pictures"].items()]
    click.echo(f"records   {facts['records']}")
    click.echo(f"bytes     {facts['bytes']}")
    click.echo(f"images    {', '.join(counts)}")
    click.echo(f"licence   {facts['license']}")
    for line in facts["report"]:
        click.echo(f"report    {line}")
    click.echo(f"sheet     {out}")
