"""`galip mix`."""

from pathlib import Path

import click

import galip_keras
from galip_cli import points
from galip_cli.options import MODEL, OUT, TRUNCATION
from galip_cli.quiet import quiet_imports
from galip_cli.types import PARTS, PROMPT, SEEDS
from galip_keras.files import make_folder
from galip_keras.sampling.requests import SHEET, Output


@click.command()
@click.argument("prompts", nargs=-1, required=True, type=PROMPT, metavar="PROMPT...")
@MODEL
@click.option("--seeds", type=SEEDS, help="Seeds of the noise.  [default: 0-3]")
@click.option(
    "--blocks",
    type=PARTS,
    help="Give these blocks of the generator, such as 2-4, the second of two prompts. "
    "Block 0 is the coarsest; `bridge` comes before it.",
)
@TRUNCATION
@OUT
def mix(prompts, model, seeds, blocks, truncation, out):
    """Draw the noise of one image with the prompt of another.

    Without --blocks: a sheet of every noise (a row) with every prompt (a column). With
    --blocks: a column of the first prompt, one in which those blocks get the second
    prompt, and one of the second prompt. A PROMPT may be an .npz file that `galip
    invert` wrote, which brings its own noise. Prints the path of the file.

    \b
    Examples:
      galip mix "a red bird" "a blue bird flying in the sky" --seeds 0-3
      galip mix "a red bird" "a blue bird" --blocks 2-3
    """
    if len(prompts) < 2:
        raise click.UsageError("a mixture takes two prompts or more.")
    if blocks and len(prompts) != 2:
        raise click.UsageError("--blocks takes two prompts.")
    seeds = seeds or list(range(4))
    with quiet_imports():
        from galip_keras.images import image_grid
        from galip_keras.sampling import latent
        from galip_keras.sampling.image_files import free_path, save_image
        from galip_keras.sampling.sampler import load_keras
    network = load_keras(model)
    folder = Path(out)
    make_folder(folder, "out")
    given = points.read(network, prompts, [0] * len(prompts), 1.0)
    texts = [point.text_embedding for point in given]
    noises = [
        point.noise
        for prompt, point in zip(prompts, given, strict=True)
        if points.is_file(prompt)
    ]
    noises += list(galip_keras.noise(seeds, network.latent_dim, truncation))
    if blocks:
        texts.insert(1, latent.mix(network, texts[0], texts[1], blocks))
    cells = [latent.Point(noise, text) for noise in noises for text in texts]
    sheet = image_grid(latent.draw(network, cells), columns=len(texts))
    facts = {
        "prompts": list(prompts),
        "seeds": seeds,
        "blocks": blocks,
        "truncation": truncation,
        "model": model,
        "version": galip_keras.__version__,
    }
    name = " with ".join(prompts) + (f" in {blocks}" if blocks else "")
    others = {} if truncation == 1.0 else {"truncation": truncation}
    if seeds != list(range(4)):
        others["seeds"] = seeds
    path = folder / f"{Output(name, SHEET).name(others=others)}.png"
    path = free_path(path, facts)
    save_image(sheet, path, facts)
    click.echo(path)
