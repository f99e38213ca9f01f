"""`galip mix`."""

import re
from pathlib import Path

import click

import galip_keras
from galip_cli import pictures, points
from galip_cli.options import MODEL, OUT, TRUNCATION
from galip_cli.prompts import SHEET, Output, Seeds, Sentence
from galip_cli.quiet import quiet_imports


class Parts(click.ParamType):
    """`bridge,0,2-3` as the numbers that `editing.mix` has for parts."""

    name = "blocks"

    def convert(self, value, param, ctx):
        parts = set()
        for part in value.split(","):
            match = re.fullmatch(r"\s*([0-9]{1,3})(?:-([0-9]{1,3}))?\s*", part)
            if part.strip() == "bridge":
                parts.add(0)
            elif match and int(match[1]) <= int(match[2] or match[1]):
                parts.update(range(int(match[1]) + 1, int(match[2] or match[1]) + 2))
            else:
                self.fail(
                    f"{value!r} is not like bridge, 2-4 or bridge,0,2.", param, ctx
                )
        return sorted(parts)


@click.command()
@click.argument(
    "prompts", nargs=-1, required=True, type=Sentence(), metavar="PROMPT..."
)
@MODEL
@click.option("--seeds", type=Seeds(), help="Of the noise.  [default: 0-3]")
@click.option(
    "--blocks",
    type=Parts(),
    help="Of two prompts: give these blocks of the generator the second one, such as "
    "2-4. Block 0 is the coarsest; `bridge` comes before it.",
)
@TRUNCATION
@OUT
def mix(prompts, model, seeds, blocks, truncation, out):
    """Draw the noise of one picture with the sentence of another.

    Without --blocks a sheet of every sentence (a column) with every noise (a row). With
    --blocks a column of the first sentence, one where those blocks hear the second, and
    one of the second. A PROMPT may be an .npz file that `galip invert` wrote, which
    brings a noise of its own. Prints the path of the file.

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
    folder = Path(out)
    pictures.check_writable(folder)
    with quiet_imports():
        import numpy as np

        from galip_keras.images import image_grid
        from galip_keras.sampling import latent as editing
    network = points.load(model)
    given = points.read(network, prompts, [0] * len(prompts), 1.0)
    texts = [point.text_embedding for point in given]
    noises = [
        point.noise
        for prompt, point in zip(prompts, given, strict=True)
        if points.is_file(prompt)
    ]
    latents = galip_keras.noise(seeds, network.latent_dim)
    noises += list(np.asarray(latents) * np.float32(truncation))
    if blocks:
        texts.insert(1, editing.mix(network, *texts, blocks))
    cells = [editing.Point(noise, text) for noise in noises for text in texts]
    sheet = image_grid(points.draw(network, cells), columns=len(texts))
    facts = {
        "prompts": list(prompts),
        "seeds": seeds,
        "blocks": blocks,
        "truncation": truncation,
        "model": model,
        "version": galip_keras.__version__,
    }
    name = " with ".join(prompts) + (f" in {blocks}" if blocks else "")
    path = folder / f"{Output(name, SHEET).name()}.png"
    pictures.save(sheet, path, facts)
    click.echo(path)
