"""Trains GALIP on the drawn birds without this or that part of it.

python examples/toybirds/ablations.py --clip runs/clip --out runs/ablations

What was measured of each is in ablations.json here.
"""

from pathlib import Path

import click
import keras
from birds import load, middle
from classifier import read
from evaluate import followed, frechet, generate, to_json
from keras import ops

import galip_keras
from galip_keras import FrozenCLIP, datasets
from galip_keras.console import say
from galip_keras.metrics import classifier
from galip_keras.models import architectures
from galip_keras.presets.loading import load_model

FIGURES = Path(__file__).with_suffix(".json")

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
}


def train(variant, clip, run, steps, data_dir, seed):
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
        clip=clip,
        run=run,
        resume=True,
        steps=steps,
        batch_size=BATCH_SIZE,
        data_dir=data_dir,
        seed=seed,
    )
    return load_model(str(run))


def table(results):
    """The figures as a table of Markdown."""
    names = list(results["as it is"]["followed"])
    lines = [f"| | {' | '.join(names)} | Frechet |", "|---" * (len(names) + 2) + "|"]
    for variant, values in results.items():
        shares = " | ".join(f"{values['followed'][name]:.0%}" for name in names)
        lines.append(f"| {variant} | {shares} | {values['frechet']:.1f} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0])
@click.option("--clip", required=True, metavar="FOLDER")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(clip, out, steps, data_dir, seed):
    builder = datasets.prepare("toybirds", data_dir)
    judge = classifier.load()
    pictures, _, texts = load(builder, "test")
    captions = [text[0] for text in texts]
    real, _ = read(judge, middle(pictures))
    results = {}
    for name, variant in VARIANTS.items():
        say(f"{name}:")
        run = out / name.replace(" ", "-")
        model = train(variant, clip, run, steps, data_dir, seed)
        features, found = read(judge, generate(model, captions))
        results[name] = {
            "followed": followed(captions, found),
            "frechet": frechet(features, real),
        }
        FIGURES.write_text(to_json(results))
        keras.backend.clear_session()
    click.echo(table(results))


if __name__ == "__main__":
    main()
