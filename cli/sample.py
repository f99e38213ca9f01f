"""`galip sample`."""

import json
import os
from pathlib import Path

import click

from galip_cli.options import MODEL, OUT, PRECISION, TRUNCATION
from galip_cli.quiet import quiet_imports
from galip_cli.released import fetch_first
from galip_cli.types import PROMPT, SEEDS, SHARD
from galip_keras.files import make_folder
from galip_keras.sampling.requests import (
    FORMATS,
    MOST,
    SHEET,
    list_outputs,
    read_prompts,
)

# Images that are drawn without a progress bar.
_FEW = 16


@click.command()
@click.argument("prompts", nargs=-1, type=PROMPT, metavar="PROMPT...")
@click.option(
    "--prompts-file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="More prompts, one per line; - is standard input. In .json, .jsonl and .csv "
    "files a prompt may have its own `seed` or `seeds`, in place of --seeds.",
)
@click.option(
    "--plus",
    multiple=True,
    type=PROMPT,
    metavar="TEXT",
    help="Add this to what every prompt means; may be repeated.",
)
@click.option(
    "--minus",
    multiple=True,
    type=PROMPT,
    metavar="TEXT",
    help="Subtract this from it; may be repeated.",
)
@MODEL
@click.option("--seeds", type=SEEDS, help="Such as 3, 0-7 or 1,5,9.")
@click.option(
    "--num-images",
    type=click.IntRange(1, MOST),
    metavar="N",
    help="Short for --seeds 0-(N-1).",
)
@TRUNCATION
@PRECISION
@click.option(
    "--best-of",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw N candidates for each image, seeds SEED*N to SEED*N+N-1, and keep the "
    "one that a CLIP finds most like its prompt.",
)
@click.option(
    "--scorer",
    metavar="CLIP",
    help="The CLIP of --best-of: a keras-hub preset, or one of Hugging Face such as "
    "openai/clip-vit-large-patch14.  [default: the model's own, which it was trained "
    "to please]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Images drawn at once, for GPUs. With more than 1, rounding may depend on "
    "what else is in the batch.",
)
@click.option(
    "--shard",
    type=SHARD,
    metavar="I/N",
    help="Draw only the I-th of N parts: N machines share the work.",
)
@OUT
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(FORMATS)),
    default="png",
    show_default=True,
    help="Format of the images.",
)
@click.option("--resume", is_flag=True, help="Skip the images that are in DIR already.")
@click.option(
    "--grid",
    is_flag=True,
    help="Also write grid.png: a row per prompt, a column per seed.",
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
    precision,
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
    """Make images from prompts.

    Draws a sheet of sixteen images for each prompt, or with --seeds or --num-images one
    image for every prompt and seed. Prints the paths of the files, which carry prompt,
    seed, model and precision as text. The same prompt, seed, model and precision give
    the same image, whatever else is asked for.

    \b
    Examples:
      galip sample "a red bird"
      galip sample "an owl" "a red barn" --model runs/birds --seeds 0-7 --grid
    """
    if seeds and num_images:
        raise click.UsageError("--seeds and --num-images exclude each other: give one.")
    if scorer and not best_of:
        raise click.UsageError("--scorer is for --best-of: give both.")
    rows = [(prompt, None) for prompt in prompts] + _read(prompts_file)
    if not rows:
        raise click.UsageError('there is no prompt: give one, such as "an owl".')
    if grid and (shard or any(own for _, own in rows)):
        raise click.UsageError(
            "--grid takes the same seeds for every prompt: it goes neither with "
            "--shard nor with seeds in a file."
        )
    seeds = seeds or list(range(num_images or 0))
    try:
        outputs = list_outputs(rows, seeds, best_of or 1)[shard or slice(None)]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    fetch_first(model)
    is_plain = not (plus or minus or best_of)
    num_images = sum(len(output.seeds) for output in outputs)
    # The products of a small model are no work to share: NumPy's threads would wait for
    # each other most of the time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with quiet_imports():
        from galip_keras.sampling.bulk import Bulk
        from galip_keras.sampling.sampler import Sampler, load_any

        few = num_images if is_plain else None
        network = load_any(model, few, precision=precision)
    folder = Path(out)
    make_folder(folder, "out")
    if not is_plain and not hasattr(network, "backbone"):
        raise click.UsageError("exports do not take --plus, --minus and --best-of.")
    sampler = Sampler(network, truncation, plus, minus, best_of, scorer, batch_size)
    asked = dict.fromkeys([*(output.prompt for output in outputs), *plus, *minus])
    # Without Keras there is no preprocessor, and the network itself knows.
    preprocessor = getattr(network, "preprocessor", network)
    preprocessor.warn_of_lost_words(list(asked))
    if model == "toybirds":
        _warn_of_unknown_words(preprocessor.unknown_words(list(asked)))
    facts = {"truncation": truncation, "model": model}
    bulk = Bulk(sampler, outputs, folder, facts, file_format)
    if resume:
        bulk.resume()
        there = len(bulk.finished)
        click.echo(f"{there} of {len(outputs)} files were there.", err=True)
    files, rows = [], []
    with _progress(sampler.count(bulk.missing)) as bar:
        for written in bulk.write(bar.update, reread=grid):
            files.append(written[:2])
            if grid:
                rows.append(written.images)
    if grid:
        files.append(bulk.write_grid(rows, seeds or list(SHEET))[:2])
    _print(files, as_json)


def _read(prompts_file):
    if not prompts_file:
        return []
    try:
        with click.open_file(prompts_file, encoding="utf-8-sig") as file:
            return read_prompts(prompts_file, file)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(
            f"{prompts_file} cannot be read ({error.strerror})."
        ) from error


def _print(files, as_json):
    if as_json:
        results = [{**facts, "path": str(path)} for path, facts in files]
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif files:
        click.echo("\n".join(str(path) for path, _ in files))


def _warn_of_unknown_words(words):
    if words:
        click.echo(
            f"toybirds knows only drawn birds, and not {', '.join(map(repr, words))}: "
            "the image is a guess. For other words there are the authors' models: "
            "--model galip_cc12m or galip_coco (not for commercial use).",
            err=True,
        )


def _progress(count):
    from galip_keras.console import progress_bar

    return progress_bar(count > _FEW, total=count, desc="Images", unit=" images")
