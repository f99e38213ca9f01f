"""`galip sample`."""

import contextlib
import hashlib
import json
import re
import sys
import tempfile
import unicodedata
from pathlib import Path

import click

import galip_keras
from galip_cli.quiet import quiet_imports

_MOST_SEEDS = 1_000_000

# Pictures that are made without a progress bar.
_FEW = 16

# Rows and columns of a sheet.
_SHEET = 4


class Seeds(click.ParamType):
    """`3`, `0-7` or `1,5,9-12` as a list of ints, each once."""

    name = "seeds"

    def convert(self, value, param, ctx):
        seeds: dict[int, None] = {}
        for part in value.split(","):
            match = re.fullmatch(r"\s*([0-9]+)(?:-([0-9]+))?\s*", part)
            if match is None:
                self.fail(f"{value!r} is not like 3, 0-7 or 1,5,9.", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last or last >= 2**63:
                self.fail(f"{part!r} must ascend and stay below 2**63.", param, ctx)
            if len(seeds) + last - first >= _MOST_SEEDS:
                self.fail(f"more than {_MOST_SEEDS} seeds.", param, ctx)
            seeds.update(dict.fromkeys(range(first, last + 1)))
        return list(seeds)


@click.command()
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@click.option(
    "--prompts-file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="More prompts, one a line; - is standard input.",
)
@click.option(
    "--model",
    default="toybirds",
    show_default=True,
    metavar="MODEL",
    help="A preset, run folder, preset folder, hub handle or architecture.",
)
@click.option("--seeds", type=Seeds(), help="Such as 3, 0-7 or 1,5,9.")
@click.option(
    "--num-images",
    type=click.IntRange(1, _MOST_SEEDS),
    metavar="N",
    help="Short for --seeds 0-(N-1).",
)
@click.option(
    "--truncation",
    type=click.FloatRange(0, 10),
    default=1.0,
    show_default=True,
    help="Factor of the noise: less than 1 gives more typical, less varied pictures.",
)
@click.option(
    "--out",
    default="samples",
    show_default=True,
    metavar="DIR",
    help="Where the pictures go.",
)
@click.option(
    "--grid", is_flag=True, help="Also write grid.png: a row a prompt, a column a seed."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of paths.")
def sample(
    prompts, prompts_file, model, seeds, num_images, truncation, out, grid, as_json
):
    """Make pictures from sentences.

    A sheet of sixteen for each prompt; with --seeds or --num-images a picture for every
    prompt and seed. Prints the paths of the PNG files, which carry prompt, seed and
    model as text. The same prompt, seed and model give the same picture, whatever else
    is asked for.

    \b
    Examples:
      galip sample "a red bird"
      galip sample "an owl" "a red barn" --model runs/birds --seeds 0-7 --grid
    """
    prompts = _all_prompts(prompts, prompts_file)
    if seeds and num_images:
        raise click.UsageError("--seeds and --num-images exclude each other: give one.")
    sheets = not (seeds or num_images)
    seeds = seeds or list(range(num_images or _SHEET**2))
    folder = Path(out)
    _check_writable(folder)
    with quiet_imports():
        import keras
        import numpy as np
        from PIL import Image

        from galip_keras.callbacks import image_grid
        from galip_keras.loading import load_model

    # An architecture begins with random weights: the same ones every time.
    keras.utils.set_random_seed(0)
    network = load_model(model)
    _warn_of_unknown_words(network, model, prompts)
    common = {
        "truncation": truncation,
        "model": model,
        "version": galip_keras.__version__,
    }
    results = []

    def save(image, name, **text):
        text = {**text, **common}
        path = folder / f"{name}.png"
        _save(image, path, text)
        results.append({**text, "path": str(path)})

    jobs = [(prompt, seed) for prompt in prompts for seed in seeds]
    images = []
    with _progress(jobs) as bar:
        for prompt, seed in bar:
            # One at a time: in a batch, rounding depends on what else is in it.
            image = network.generate([prompt], seed=seed, truncation=truncation)[0]
            if sheets or grid:
                images.append(image)
            if not sheets:
                name = f"{_slug(prompt)}-{seed}"
                save(Image.fromarray(image), name, prompt=prompt, seed=seed)
            elif seed == seeds[-1]:
                sheet = image_grid(np.stack(images[-len(seeds) :]), columns=_SHEET)
                save(sheet, _slug(prompt), prompt=prompt, seeds=seeds)
                if not grid:
                    images.clear()
    if grid:
        picture = image_grid(np.stack(images), columns=len(seeds))
        save(picture, "grid", prompts=prompts, seeds=seeds)
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(result["path"] for result in results))


def _all_prompts(prompts, prompts_file):
    if any(not prompt.strip() for prompt in prompts):
        raise click.UsageError("a prompt is blank: say what the picture shows.")
    prompts = list(prompts)
    if prompts_file:
        try:
            with click.open_file(prompts_file, encoding="utf-8-sig") as lines:
                prompts += [line.strip() for line in lines if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(
                f"{prompts_file} cannot be read as UTF-8 text ({error})."
            ) from error
    if not prompts:
        raise click.UsageError('there is no prompt: give one, such as "an owl".')
    for prompt in prompts:
        if re.search("[\ud800-\udfff]", prompt):
            raise click.UsageError("a prompt is not valid UTF-8.")
    return list(dict.fromkeys(prompts))


def _check_writable(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise click.ClickException(
            f"{folder} cannot be written ({error.strerror}): give another --out."
        ) from error


def _warn_of_unknown_words(network, model, prompts):
    if model != "toybirds":
        return
    words = network.preprocessor.unknown_words(prompts)
    if words:
        click.echo(
            f"toybirds knows only drawn birds, and not {', '.join(map(repr, words))}: "
            "the picture is a guess. For any words there is the paper's model, which "
            "you train (galip train --help) or convert (galip convert --help).",
            err=True,
        )


def _progress(jobs):
    if len(jobs) <= _FEW:
        return contextlib.nullcontext(jobs)
    return click.progressbar(jobs, label="Pictures", file=sys.stderr)


def _slug(prompt):
    """A file name for a prompt: its words, and a hash where they are not all of it."""
    ascii_prompt = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore")
    words = re.findall("[a-z0-9]+", ascii_prompt.decode().lower())
    slug = "-".join(words)[:60].strip("-")
    if slug.replace("-", " ") == prompt:
        return slug
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else digest


def _save(image, path, text):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, str(value))
    image.save(path, pnginfo=info)
