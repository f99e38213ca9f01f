"""Measures a model of the drawn birds by a network that it never saw.

python examples/toybirds/evaluate.py runs/toybirds
"""

import json

import click
import keras
import numpy as np
from birds import SIZE, labels, load, middle, named_colors, to_unit
from classifier import read

from galip_keras import datasets
from galip_keras.datasets.toybirds.birds import ATTRIBUTES, COLORS, Bird
from galip_keras.datasets.toybirds.drawing import draw
from galip_keras.metrics import classifier, diversity, frechet_distance, r_precision
from galip_keras.presets.loading import load_model

COUNT = 2000
GROUP = 100  # pictures at a time
BIRDS_A_CAPTION = 16
CAPTIONS = 20


def generate(model, captions, seed=0):
    """Uint8 pictures, one a caption, their seeds counted from `seed`."""
    batches = [
        model.generate(captions[i : i + GROUP], seed=seed + i)
        for i in range(0, len(captions), GROUP)
    ]
    return np.concatenate(batches)


def followed(captions, found):
    """How often a colour that a caption names is there, by attribute."""
    right = {}
    for i, caption in enumerate(captions):
        for name, color in named_colors(caption).items():
            shown = ATTRIBUTES[name][found[name][i]]
            right.setdefault(name, []).append(shown == color)
    return {name: np.mean(values) for name, values in right.items()}


def entropy(numbers):
    """Of what is found of an attribute, in bits."""
    shares = np.unique(numbers, return_counts=True)[1] / len(numbers)
    return -np.sum(shares * np.log2(shares))


def variety(model, classifier, real):
    """Entropy of what "a red bird" and its like leave open, of that of the data."""
    captions = [f"a {color} bird" for color in COLORS for _ in range(GROUP)]
    _, found = read(classifier, generate(model, captions))
    del found["body"]
    return {
        name: np.mean([entropy(part) for part in np.split(numbers, len(COLORS))])
        / entropy(real[name])
        for name, numbers in found.items()
    }


def embed_captions(clip, preprocessor, captions):
    """CLIP's embeddings of sentences, normalised: an array `(n, embedding_dim)`."""
    return _embed(captions, lambda part: clip.embed_text(preprocessor(part)))


def embed_images(clip, images):
    """CLIP's embeddings of uint8 pictures, normalised: `(n, embedding_dim)`."""
    return _embed(
        images, lambda part: clip.extract_features_and_embed(to_unit(part))[1]
    )


def _embed(inputs, embed):
    parts = [embed(inputs[i : i + GROUP]) for i in range(0, len(inputs), GROUP)]
    embedded = keras.ops.normalize(keras.ops.concatenate(parts), axis=-1)
    return keras.ops.convert_to_numpy(embedded)


def frechet(x, y):
    """The Frechet distance of two sets of features, as Gaussians."""
    gaussians = ((f.mean(axis=0), np.cov(f.T)) for f in (x, y))
    return frechet_distance(*(part for gaussian in gaussians for part in gaussian))


def diversities(model, drawn, captions, rng):
    """Mean distance of 16 birds of a caption, of that of 16 drawn ones.

    For captions that name everything, and for those that name the body alone.
    """
    ratios = {}
    for name, index in (("everything named", 0), ("body named", 9)):
        values = []
        for i in rng.choice(len(drawn), CAPTIONS, replace=False):
            seeds = 3_000_000 + BIRDS_A_CAPTION * int(i) + np.arange(BIRDS_A_CAPTION)
            real = []
            for seed in seeds:
                bird = drawn[i]
                if index:
                    others = {n: rng.choice(v) for n, v in ATTRIBUTES.items()}
                    bird = Bird(**{**others, "body": bird.body})
                real.append(np.asarray(draw(bird, int(seed), SIZE)))
            made = generate(model, [captions[i][index]] * BIRDS_A_CAPTION)
            values.append(diversity(made) / diversity(np.stack(real)))
        ratios[name] = np.mean(values)
    return ratios


def figures(model, classifier, builder, count=COUNT):
    """All figures, by name."""
    rng = np.random.default_rng(0)
    results = {}
    reals, _, _ = load(builder, "train", 2 * count)
    features, _ = read(classifier, middle(reals))
    halves = features[:count], features[count:]
    for split in ("test", "compositions"):
        pictures, drawn, texts = load(builder, split)
        _, real = read(classifier, middle(pictures))
        truth = labels(drawn)
        # Each bird's captions in an order of its own, as many of them as it takes.
        order = [rng.permutation(len(t)) for t in texts]
        captions = [
            texts[i % len(texts)][order[i % len(texts)][i // len(texts)]]
            for i in range(count)
        ]
        made, found = read(classifier, generate(model, captions))
        results[split] = {
            "classifier": {n: np.mean(real[n] == truth[n]) for n in ATTRIBUTES},
            "followed": followed(captions, found),
        }
        if split == "test":
            full = [t[0] for t in texts][: count // GROUP * GROUP]
            results["retrieval"] = r_precision(
                embed_images(model.backbone.clip, generate(model, full)),
                embed_captions(model.backbone.clip, model.preprocessor, full),
            )
            distances = frechet(made, halves[0]), frechet(*halves)
            results["frechet"] = dict(zip(("generated", "real"), distances))
            results["diversity"] = diversities(model, drawn, texts, rng)
            results["entropy"] = variety(model, classifier, real)
    return results


def to_json(results):
    return json.dumps(results, indent=2, default=lambda x: round(float(x), 4)) + "\n"


@click.command(help=__doc__.splitlines()[0])
@click.argument("model")
@click.option("--count", type=click.IntRange(GROUP), default=COUNT, show_default=True)
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
def main(model, count, data_dir):
    builder = datasets.prepare("toybirds", data_dir)
    results = figures(load_model(model), classifier.load(), builder, count)
    click.echo(to_json(results), nl=False)


if __name__ == "__main__":
    main()
