"""Draws what a run on the toy birds did: its curves, and its samples beside real birds.

python examples/toybirds/report.py runs/toybirds --out report

It needs matplotlib.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image

from galip_keras import datasets
from galip_keras.datasets.pipeline import fixed_images
from galip_keras.images import image_grid
from galip_keras.metrics.report import draw_curves

COLUMNS = 4


def join(grids):
    """Grids beside each other, with a white line between."""
    line = np.full((grids[0].shape[0], 4, 3), 255, np.uint8)
    parts = [part for grid in grids for part in (line, grid)]
    return Image.fromarray(np.concatenate(parts[1:], axis=1))


@click.command(help=__doc__.splitlines()[0])
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option("--steps", help="Of which samples.  [default: first, middle, last]")
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
def main(run, out, steps, data_dir):
    out.mkdir(parents=True, exist_ok=True)
    draw_curves(run / "metrics.jsonl", out / "curves.png")
    paths = sorted((run / "samples").glob("step_*.png"))
    if steps:
        names = {f"step_{int(step):06d}.png" for step in steps.split(",")}
        missing = names.difference(path.name for path in paths)
        if missing:
            raise click.UsageError(f"{run} has no samples {', '.join(sorted(missing))}")
        paths = [path for path in paths if path.name in names]
    elif not paths:
        raise click.UsageError(f"{run} has no samples")
    else:
        paths = [paths[i] for i in (0, len(paths) // 2, -1)]
    grids = [np.asarray(Image.open(path)) for path in paths]
    size = grids[0].shape[0] // COLUMNS
    builder = datasets.prepare("toybirds", data_dir)
    pictures, captions = fixed_images(builder, COLUMNS**2, size)
    real = np.asarray(image_grid(pictures, COLUMNS))
    join([*grids, real]).save(out / "samples.png")
    click.echo("\n".join(f"- {caption}" for caption in captions))


if __name__ == "__main__":
    main()
