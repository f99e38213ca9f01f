"""`galip sample`."""

import json
import sys
from pathlib import Path

import click

import galip_keras
from galip_cli import pictures, points
from galip_cli.options import MODEL, OUT, TRUNCATION
from galip_cli.painter import Painter, one_or_all
from galip_cli.prompts import (
    MOST,
    SHEET,
    Seeds,
    Sentence,
    Shard,
    list_outputs,
    read_prompts,
)
from galip_cli.quiet import quiet_imports

# Pictures that are made without a progress bar.
_FEW = 16


@click.command()
@click.argument("prompts", nargs=-1, type=Sentence(), metavar="PROMPT...")
@click.option(
    "--prompts-file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="More prompts, one a line; - is standard input. In .jsonl and .csv a prompt "
    "may have a seed or seeds, in place of --seeds.",
)
@click.option(
    "--plus",
    multiple=True,
    type=Sentence(),
    metavar="TEXT",
    help="Added to what every prompt means. As often as you like.",
)
@click.option(
    "--minus",
    multiple=True,
    type=Sentence(),
    metavar="TEXT",
    help="Subtracted from it.",
)
@MODEL
@click.option("--seeds", type=Seeds(), help="Such as 3, 0-7 or 1,5,9.")
@click.option(
    "--num-images",
    type=click.IntRange(1, MOST),
    metavar="N",
    help="Short for --seeds 0-(N-1).",
)
@TRUNCATION
@click.option(
    "--best-of",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw N candidates for each picture, seeds SEED*N to SEED*N+N-1, and keep the "
    "one that a CLIP finds most like its sentence.",
)
@click.option(
    "--scorer",
    metavar="PRESET",
    help="The CLIP of --best-of, a keras-hub preset.  [default: the model's own, which "
    "it was trained to please]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Pictures made at once, for GPUs. With more than 1, rounding may differ by "
    "what else is in the batch.",
)
@click.option(
    "--shard",
    type=Shard(),
    metavar="I/N",
    help="Make the I-th of N parts only: N machines share the work.",
)
@OUT
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(pictures.FORMATS)),
    default="png",
    show_default=True,
    help="Of the pictures.",
)
@click.option(
    "--resume", is_flag=True, help="Leave out the pictures that are in DIR already."
)
@click.option(
    "--grid", is_flag=True, help="Also write grid.png: a row a prompt, a column a seed."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of paths.")
def sample(
    prompts,
    prompts_file,
    plus,
    minus,
    model,
    seeds,
    num_images,
    truncation,
    best_of,
    scorer,
    batch_size,
    shard,
    out,
    file_format,
    resume,
    grid,
    as_json,
):
    """Make pictures from sentences.

    A sheet of sixteen for each prompt; with seeds or --num-images a picture for every
    prompt and seed. Prints the paths of the files, which carry prompt, seed and model
    as text. The same prompt, seed and model give the same picture, whatever else is
    asked for.

    \b
    Examples:
      galip sample "a red bird"
      galip sample "an owl" "a red barn" --model runs/birds --seeds 0-7 --grid
    """
    if seeds and num_images:
        raise click.UsageError("--seeds and --num-images exclude each other: give one.")
    if scorer and not best_of:
        raise click.UsageError("--scorer is for --best-of: give both.")
    rows = [(prompt, None) for prompt in prompts]
    rows += read_prompts(prompts_file) if prompts_file else []
    if not rows:
        raise click.UsageError('there is no prompt: give one, such as "an owl".')
    if grid and (shard or any(own for _, own in rows)):
        raise click.UsageError(
            "--grid takes the same seeds for every prompt: it goes neither with "
            "--shard nor with seeds in a file."
        )
    seeds = seeds or list(range(num_images or 0))
    outputs = list_outputs(rows, seeds, best_of or 1)[shard or slice(None)]
    folder = Path(out)
    pictures.check_writable(folder)
    with quiet_imports():
        import numpy as np

        from galip_keras.images import image_grid

        network = points.load_any(model)
    if (plus or minus or best_of) and not hasattr(network, "backbone"):
        raise click.UsageError("--plus, --minus and --best-of do not take exports.")
    sentences = list(dict.fromkeys(output.prompt for output in outputs))
    _warn_of_unknown_words(network, model, [*sentences, *plus, *minus])
    painter = Painter(network, truncation, plus, minus, best_of, scorer, batch_size)
    common = {"truncation": truncation, "model": model, **painter.facts}
    version = {"version": galip_keras.__version__}
    seed_name = "asked_seed" if best_of else "seed"

    def place(output):
        return folder / f"{output.name(plus, minus)}{pictures.FORMATS[file_format][0]}"

    def asked(output):
        seeds = one_or_all(seed_name, output.seeds)
        return {"prompt": output.prompt, **seeds, **common}

    there = {}
    if resume:
        found = ((output, _facts(place(output), asked(output))) for output in outputs)
        there = {output: facts for output, facts in found if facts}
        click.echo(f"{len(there)} of {len(outputs)} files were there.", err=True)
    missing = [output for output in outputs if output not in there]
    results, grid_rows = [], []

    def tell(path, facts):
        results.append({**facts, "path": str(path)} if as_json else str(path))

    with _progress(painter.count(missing)) as bar:
        painted = painter.paint(missing, bar)
        for output in outputs:
            path, facts = place(output), there.get(output)
            if facts is None:
                images, kept = next(painted)
                facts = {**asked(output), **kept, **version}
                picture = image_grid(images, output.columns)
                pictures.save(picture, path, facts, file_format)
            elif grid:
                images = _cut(path, output.columns)
            if grid:
                grid_rows.append(images)
            tell(path, facts)
    if grid:
        seeds = seeds or list(SHEET)
        picture = image_grid(np.concatenate(grid_rows), columns=len(seeds))
        facts = {"prompts": sentences, f"{seed_name}s": seeds, **common, **version}
        pictures.save(picture, folder / "grid.png", facts, "png")
        tell(folder / "grid.png", facts)
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif results:
        click.echo("\n".join(results))


def _warn_of_unknown_words(network, model, sentences):
    if model != "toybirds":
        return
    words = network.preprocessor.unknown_words(sentences)
    if words:
        click.echo(
            f"toybirds knows only drawn birds, and not {', '.join(map(repr, words))}: "
            "the picture is a guess. For any words there is the paper's model, which "
            "you train (galip train --help) or convert (galip convert --help).",
            err=True,
        )


def _progress(count):
    from tqdm.auto import tqdm

    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=count,
        desc="Pictures",
        unit=" pictures",
        # In a log file lines are not renewed.
        mininterval=0.5 if is_terminal else 60,
        file=sys.stderr,
        dynamic_ncols=is_terminal,
        disable=count <= _FEW,
    )


def _facts(path, asked):
    """What a file tells of itself, None where there is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            facts = dict(json.loads(image.getexif().get(pictures.DESCRIPTION, "{}")))
    except (OSError, SyntaxError):
        return None
    except (ValueError, TypeError):
        facts = {}
    for key, value in asked.items():
        if facts.get(key) != value:
            raise click.ClickException(
                f"{path} was made with another {key}: give another --out, or leave "
                "--resume out to make it anew."
            )
    return facts


def _cut(path, columns):
    """The pictures of a sheet."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = (size // columns for size in pixels.shape[:2])
    parts = pixels.reshape(columns, height, columns, width, 3)
    return parts.swapaxes(1, 2).reshape(-1, height, width, 3)
