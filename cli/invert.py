"""`galip invert`."""

import json
from pathlib import Path

import click

import galip_keras
from galip_cli.options import MODEL, OUT
from galip_cli.quiet import quiet_imports
from galip_cli.types import PROMPT
from galip_keras.files import make_folder, sha256


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@MODEL
@click.option(
    "--prompt",
    type=PROMPT,
    default="a picture",
    show_default=True,
    help="What the image shows, to begin with.",
)
@click.option(
    "--steps",
    type=click.IntRange(0, 100_000),
    default=300,
    show_default=True,
    help="Steps of gradient descent.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**62),
    default=0,
    show_default=True,
    help="The first of the 32 seeds among which the start is chosen.",
)
@OUT
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of paths.")
def invert(image, model, prompt, steps, seed, out, as_json):
    """Find the noise and the text embedding of a given IMAGE.

    Writes the image beside the closest one that the model can draw, and its noise and
    embedding as an .npz file, which `galip interpolate` and `galip mix` take as a
    PROMPT. Reports how far pixels differ (root mean square, in grey levels of 255), and
    how alike the model's CLIP finds the two. The image is cropped to a square and
    resized to the size of the model.

    \b
    Examples:
      galip invert bird.png --prompt "a red bird"
      galip invert photo.jpg --model runs/birds --steps 1000 --out inverted
    """
    with quiet_imports():
        import numpy as np
        from PIL import Image, ImageOps

        from galip_keras.images import ImageError, image_grid, read_image
        from galip_keras.sampling import inversion, latent
        from galip_keras.sampling.image_files import free_path, save_image
        from galip_keras.sampling.sampler import load_keras
    try:
        upright = read_image(image)
    except ImageError as error:
        raise click.ClickException(f"{image} is no image: {error}.") from error
    network = load_keras(model)
    folder = Path(out)
    make_folder(folder, "out")
    size = network.backbone.generator.image_size
    target = np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))
    found = inversion.invert(network, target, prompt, steps, seed=seed)
    stem = Path(image).stem
    facts = {
        "image": sha256(image),
        "prompt": prompt,
        "steps": steps,
        "seed": seed,
        "error": round(found.error, 3),
        "start_error": round(found.start_error, 3),
        "similarity": round(found.similarity, 4),
        "model": model,
        "version": galip_keras.__version__,
    }
    # Another image of the same name, or other settings, must not replace files.
    asked = {key: facts[key] for key in ("prompt", "steps", "seed", "model", "image")}
    pair = free_path(folder / f"{stem}-inverted.png", asked)
    point = pair.with_name(f"{pair.stem.replace('-inverted', '', 1)}.npz")
    latent.save(point, found.point)
    save_image(image_grid(np.stack([target, found.image]), columns=2), pair, facts)
    click.echo(
        f"Pixels differ by {found.error:.1f} grey levels ({found.start_error:.1f} "
        f"before the descent); CLIP finds the two alike by {found.similarity:.3f}.",
        err=True,
    )
    if as_json:
        facts.update(point=str(point), picture=str(pair))
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{pair}\n{point}")
