"""Trains GALIP on the drawn birds without this or that part of it.

python examples/toybirds/ablations.py --out runs/ablations

What was measured of each is in ablations.json here. The same command goes on after an
interruption.
"""

from pathlib import Path

import click
import keras
import numpy as np
from birds import load, middle
from classifier import read
from evaluate import followed, frechet, generate, to_json, variety
from keras import ops

import galip_keras
from galip_keras import FrozenCLIP, datasets
from galip_keras.console import say
from galip_keras.metrics import classifier
from galip_keras.models import architectures
from galip_keras.presets.loading import load_model
from galip_keras.training.config import settings

FIGURES = Path(__file__).with_suffix(".json")
CLIP = Path(__file__).with_name("clip")

BATCH_SIZE = 16


@keras.saving.register_keras_serializable()
class PixelTaps(FrozenCLIP):
    """Its features are the embeddings of the patches alone, a linear map of pixels.

    The discriminator on them is of the same size, and knows nothing of CLIP.
    """

    def _encode(self, images, num_layers):
        features, x = super()._encode(images, num_layers)
        return ops.repeat(features[:, :1], features.shape[1], axis=1), x


# By name: what is another class, in the generator, in the losses.
VARIANTS = {
    "as it is": {},
    "without CLIP in the discriminator": {"clip_class": PixelTaps},
    "without CLIP-ViT in the generator": {"generator": {"bridge_scale": 0.0}},
    "without prompts": {"generator": {"prompt_layers": ()}},
    "without the penalty": {"training": {"penalty_weight": 0.0}},
    "without the energy score": {"training": {"energy_weight": 0.0}},
}


def train(variant, run, **options):
    spec = architectures.ARCHITECTURES["galip_small"]
    changed = {
        name: {**spec[name], **variant.get(name, {})}
        for name in ("generator", "training")
    }
    architectures.ARCHITECTURES["ablation"] = {**spec, **changed}
    architectures.FrozenCLIP = variant.get("clip_class", FrozenCLIP)
    galip_keras.train(
        "toybirds",
        preset="ablation",
        run=run,
        resume=True,
        batch_size=BATCH_SIZE,
        hard_mismatches=0.5,
        **options,
    )
    return load_model(str(run))


def table(results):
    """The figures as a table of Markdown."""
    names = list(results["as it is"]["followed"])
    header = ["", *names, "Frechet", "entropy"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for variant, values in results.items():
        shares = " | ".join(f"{values['followed'][name]:.0%}" for name in names)
        others = f"{values['frechet']:.1f} | {values['entropy']:.0%}"
        lines.append(f"| {variant} | {shares} | {others} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0])
@click.option("--clip", default=str(CLIP), metavar="FOLDER")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option("--steps", type=click.IntRange(min=1), default=3750, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(settings()["precision"].choices),
    default="float32",
    show_default=True,
)
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(out, data_dir, **options):
    builder = datasets.prepare("toybirds", data_dir)
    judge = classifier.load()
    pictures, _, texts = load(builder, "test")
    captions = [text[0] for text in texts]
    real, shown = read(judge, middle(pictures))
    results = {}
    for name, variant in VARIANTS.items():
        say(f"{name}:")
        run = out / name.replace(" ", "-")
        model = train(variant, run, data_dir=data_dir, **options)
        features, found = read(judge, generate(model, captions))
        results[name] = {
            "followed": followed(captions, found),
            "frechet": frechet(features, real),
            "entropy": np.mean(list(variety(model, judge, shown).values())),
        }
        FIGURES.write_text(to_json(results))
        keras.backend.clear_session()
    click.echo(table(results))


if __name__ == "__main__":
    main()
