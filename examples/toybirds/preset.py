"""Makes the preset that ships with the package of a run on the drawn birds.

python examples/toybirds/preset.py runs/toybirds

The weights are those of the run in half precision, to be small. What was measured of
them, and how, stands in figures.json here and on their card.
"""

import json
import shutil
import textwrap
from pathlib import Path

import click
from evaluate import figures, to_json

from galip_keras import datasets
from galip_keras.files import write_folder
from galip_keras.metrics import classifier
from galip_keras.models.architectures import preset_folder
from galip_keras.presets import card
from galip_keras.presets.loading import find_preset, load_model
from galip_keras.presets.precision import halve
from galip_keras.presets.sizes import describe

FIGURES = Path(__file__).with_name("figures.json")

CARD = """\
# toybirds

A small GALIP that draws cartoon birds of {image_size}x{image_size} pixels from English
sentences. It ships with galip-keras and is the default of its commands:
`galip sample "a red bird"`.

- Generator: {generator_parameters:,} parameters.
- CLIP, frozen: {clip_parameters_frozen:,} parameters, {clip_num_layers} blocks of width
  {clip_hidden_dim} on {clip_grid_size}x{clip_grid_size} patches, trained from scratch
  on the birds below and 30,000 others.
- Data: the 10,000 birds of the training split of `toybirds`, which galip-keras draws,
  ten captions each.
{made}
- Licence: Apache 2.0, the weights too.

## Figures

{figures}

`examples/toybirds` in the repository has the commands that made the CLIP, the model and
these figures, and how training went.

## Limits

It knows the words of its captions and no others: anything else gives some bird. It is
not a measure of what GALIP can do on photographs.
"""


def table(figures):
    """The figures as rows of Markdown."""
    percent = "{:.1%}".format
    rows = [("Named colours that are there", "test", "compositions")]
    followed = [figures[split]["followed"] for split in rows[0][1:]]
    for name in followed[0]:
        rows.append((name, *(percent(split[name]) for split in followed)))
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---|---|---|")
    distances = figures["frechet"]
    ratio = distances["generated"] / distances["real"]
    entropies = figures["entropy"].values()
    others = [
        "Read by a classifier that saw drawn birds alone, of 2,000 pictures a split.",
        f"Retrieval of the caption among 100 by its own CLIP: "
        f"{percent(figures['retrieval'])}.",
        f"Frechet distance in the classifier's features: {distances['generated']:.3g}, "
        f"{ratio:.1f} times that of two halves of real birds.",
        f"Entropy of what a caption leaves open, of the data's: mean "
        f"{percent(sum(entropies) / len(entropies))}, least {percent(min(entropies))}.",
        "Mean distance among 16 birds of a caption, of the data's: "
        + ", ".join(f"{percent(x)} ({n})" for n, x in figures["diversity"].items())
        + ".",
    ]
    return "\n".join([*lines, "", *(f"- {line}" for line in others)])


@click.command(help=__doc__.splitlines()[0])
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
def main(run, data_dir):
    builder = datasets.prepare("toybirds", data_dir)
    with write_folder(Path(preset_folder("toybirds"))) as folder:
        shutil.copytree(find_preset(run), folder, dirs_exist_ok=True)
        halve(folder)
        model = load_model(folder)
        measured = figures(model, classifier.load(), builder)
        FIGURES.write_text(to_json(measured))
        origin = json.loads((folder / card.ORIGIN).read_text())
        origin["title"] = "toybirds"
        made = f"- {origin['made']}"
        if json.loads((run / "config.json").read_text())["init"]:
            made += " Earlier runs came before it."
        facts = {
            "made": textwrap.fill(made, 88, subsequent_indent="  "),
            **describe(model),
            "figures": table(measured),
        }
        (folder / card.ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
        (folder / card.CARD).write_text(CARD.format(**facts))


if __name__ == "__main__":
    main()
