"""`galip interpolate`."""

import json
from pathlib import Path
from typing import Any

import click

import galip_keras
from galip_cli import points
from galip_cli.options import MODEL, OUT, TRUNCATION, require
from galip_cli.quiet import quiet_imports
from galip_cli.types import PROMPT, SEEDS
from galip_keras.files import make_folder
from galip_keras.sampling.requests import SHEET, Output

# Default number of frames, by format.
_FRAMES = {"strip": 8, "gif": 32, "mp4": 64}


@click.command()
@click.argument("prompts", nargs=-1, required=True, type=PROMPT, metavar="PROMPT...")
@MODEL
@click.option(
    "--seeds",
    type=SEEDS,
    help="One for all prompts, one per prompt, or several for one prompt.  [default: "
    "0, or 0,1 for a single prompt]",
)
@TRUNCATION
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(_FRAMES)),
    default="strip",
    show_default=True,
    help="strip is a PNG file of all images side by side; gif and mp4 are films.",
)
@click.option(
    "--frames",
    type=click.IntRange(2, 10_000),
    metavar="N",
    help="Number of images, including both ends.  [default: 8 for strip, 32 for gif, "
    "64 for mp4]",
)
@click.option(
    "--fps",
    type=click.IntRange(1, 100),
    default=12,
    show_default=True,
    help="Frames per second of a film.",
)
@click.option("--loop", is_flag=True, help="Return to the start at the end.")
@OUT
def interpolate(prompts, model, seeds, truncation, file_format, frames, fps, loop, out):
    """Move from image to image through the latent space.

    The path leads from prompt to prompt, from seed to seed, or both at once. A PROMPT
    may be an .npz file that `galip invert` wrote. Prints the path of the file.

    \b
    Examples:
      galip interpolate "a red bird" "a blue bird" --seeds 3
      galip interpolate "a yellow bird" --seeds 0-3 --format gif --loop
    """
    if file_format == "mp4":
        require("--format mp4", ("imageio_ffmpeg",), "video")
    prompts, seeds = points.pairs(
        list(prompts), seeds or ([0, 1] if len(prompts) == 1 else [0])
    )
    if loop:
        prompts, seeds = [*prompts, prompts[0]], [*seeds, seeds[0]]
    with quiet_imports():
        from galip_keras.sampling import latent
        from galip_keras.sampling.sampler import load_keras
    network = load_keras(model)
    folder = Path(out)
    make_folder(folder, "out")
    ends = points.read(network, prompts, seeds, truncation)
    path_through = latent.interpolate(ends, frames or _FRAMES[file_format])
    images = latent.draw(network, path_through)
    name = " to ".join(
        f"{prompt} {seed}" for prompt, seed in zip(prompts, seeds, strict=True)
    )
    facts = {
        "prompts": prompts,
        "seeds": seeds,
        "truncation": truncation,
        "model": model,
        "version": galip_keras.__version__,
    }
    settings: dict[str, tuple[Any, Any]] = {
        "truncation": (truncation, 1.0),
        "frames": (len(images), _FRAMES[file_format]),
        "fps": (12 if file_format == "strip" else fps, 12),
    }
    # A film does not tell how it was made, so its name does.
    if file_format == "mp4":
        settings["model"] = (model, "toybirds")
    others = {key: value for key, (value, usual) in settings.items() if value != usual}
    path = folder / Output(name, SHEET).name(others=others)
    click.echo(_WRITE[file_format](images, path, facts, fps))


def _strip(images, path, facts, fps):
    from galip_keras.images import image_grid
    from galip_keras.sampling.image_files import free_path, save_image

    path = free_path(path.with_name(f"{path.name}.png"), facts)
    save_image(image_grid(images, columns=len(images)), path, facts)
    return path


def _gif(images, path, facts, fps):
    from PIL import Image

    from galip_keras.sampling.image_files import free_path

    path = free_path(path.with_name(f"{path.name}.gif"), facts)
    first, *others = map(Image.fromarray, images)
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=1000 / fps,
        loop=0,
        comment=json.dumps(facts),
    )
    return path


def _mp4(images, path, facts, fps):
    import imageio.v3

    path = path.with_name(f"{path.name}.mp4")
    # Players need even sides: this pads the images.
    imageio.v3.imwrite(path, images, fps=fps, codec="libx264", macro_block_size=2)
    return path


_WRITE = {"strip": _strip, "gif": _gif, "mp4": _mp4}
