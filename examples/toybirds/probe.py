"""Measures what a CLIP knows of the drawn birds, attribute by attribute.

python examples/toybirds/probe.py runs/clip

A generator sees nothing of a caption but its embedding, and is taught by the embedding
of its picture. What neither holds cannot be learnt. Five numbers an attribute, of birds
of the test split:

- chance;
- sentence, linear: read off the embedding of a caption that names every attribute, by a
  softmax regression that was fitted on captions of the training split;
- sentence, MLP: likewise, by a hidden layer of 256;
- image, prompts: how often the prompts that name its value ("a bird with a red crown")
  are closer to an image than those that name another;
- image, linear: read off the embedding of the image by a softmax regression.
"""

import json
from pathlib import Path

import click
import keras
import numpy as np
from birds import labels, load, middle, to_unit
from keras import layers

from galip_keras import FrozenCLIP, GALIPTextToImagePreprocessor, datasets
from galip_keras.datasets.toybirds.birds import ATTRIBUTES, bird, describe
from galip_keras.models.clip import load_clip
from galip_keras.presets.loading import load_model

CAPTIONS = 8000
IMAGES = 4000
HIDDEN = 256
EPOCHS = 20
GROUP = 250  # embedded at a time
PROMPTS = 20  # a value
# The longest caption has 37 tokens.
SEQUENCE_LENGTH = 40

COLUMNS = (
    "chance",
    "sentence, linear",
    "sentence, MLP",
    "image, prompts",
    "image, linear",
)
# What GALIP asks of a CLIP, in the order of the columns. Colours, then the rest.
COLORS = (0.0, 0.93, 0.97, 0.93, 0.95)
COLORED = ("body", "wing", "crown", "belly", "beak_color")
SHAPES = (0.0, 0.90, 0.90, 0.90, 0.90)


def load_encoder(source):
    """The CLIP and the preprocessor of a GALIP, or of a CLIP preset folder."""
    config = Path(source, "config.json")
    if config.exists() and json.loads(config.read_text())["class_name"].startswith(
        "CLIP"
    ):
        backbone, tokenizer = load_clip(source)
        last = backbone.vision_encoder.num_layers - 1
        preprocessor = GALIPTextToImagePreprocessor(tokenizer, SEQUENCE_LENGTH)
        return FrozenCLIP(backbone, feature_layers=(last,)), preprocessor
    model = load_model(source)
    return model.backbone.clip, model.preprocessor


def embed(inputs, function):
    """Embeddings of captions or images as an array, not normalised."""
    parts = [function(inputs[i : i + GROUP]) for i in range(0, len(inputs), GROUP)]
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


def read(x, y, x_test, y_test, hidden=0):
    """How often networks fitted on `x` and `y` are right, by attribute."""
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    inputs = keras.Input(x.shape[1:])
    outputs = {}
    for name, values in ATTRIBUTES.items():
        features = layers.Dense(hidden, "relu")(inputs) if hidden else inputs
        outputs[name] = layers.Dense(len(values), name=name)(features)
    network = keras.Model(inputs, outputs)
    network.compile(
        keras.optimizers.Adam(3e-3),
        {n: keras.losses.SparseCategoricalCrossentropy(True) for n in outputs},
    )
    network.fit((x - mean) / deviation, y, batch_size=256, epochs=EPOCHS, verbose=0)
    found = network.predict((x_test - mean) / deviation, verbose=0)
    return {n: np.mean(np.argmax(found[n], axis=1) == y_test[n]) for n in outputs}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_prompts(embed_text, images, y):
    """How often an image is closest to the prompts of its value, by attribute."""
    right = {}
    for name, values in ATTRIBUTES.items():
        texts = [
            describe(bird(i)._replace(**{name: value}), frozenset([name]), rng)
            for value in values
            for i, rng in enumerate(map(np.random.default_rng, range(PROMPTS)))
        ]
        prompts = embed_text(texts).reshape(len(values), PROMPTS, -1)
        cosines = unit(images) @ unit(unit(prompts).mean(axis=1)).T
        right[name] = np.mean(np.argmax(cosines, axis=1) == y[name])
    return right


def probe(clip, preprocessor, builder):
    """The five numbers of each attribute."""

    def embed_text(texts):
        return embed(texts, lambda part: clip.embed_text(preprocessor(part)))

    def embed_images(images):
        images = to_unit(middle(images))
        return embed(images, lambda part: clip.extract_features_and_embed(part)[1])

    known, drawn, texts = load(builder, "train", CAPTIONS)
    y = labels(drawn)
    images, drawn, test_texts = load(builder, "test")
    y_test = labels(drawn)
    sentences = embed_text([text[0] for text in texts])
    test_sentences = embed_text([text[0] for text in test_texts])
    known, images = embed_images(known[:IMAGES]), embed_images(images)
    columns = (
        {name: 1 / len(values) for name, values in ATTRIBUTES.items()},
        read(sentences, y, test_sentences, y_test),
        read(sentences, y, test_sentences, y_test, HIDDEN),
        by_prompts(embed_text, images, y_test),
        read(known, {n: v[:IMAGES] for n, v in y.items()}, images, y_test),
    )
    return {n: [float(column[n]) for column in columns] for n in ATTRIBUTES}


def shortcomings(results):
    """What is below what GALIP asks for, in words."""
    missed = []
    for name, row in results.items():
        if name == "background":
            continue
        least = COLORS if name in COLORED else SHAPES
        missed += [
            f"{name}, {column}: {value:.1%} of {limit:.0%}"
            for column, value, limit in zip(COLUMNS, row, least)
            if value < limit
        ]
    return missed


def table(results):
    """The results as rows of Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    for name, row in results.items():
        lines.append(f"| {name} | {' | '.join(f'{100 * x:.1f}' for x in row)} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0])
@click.argument("source")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Written, too.")
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(source, path, data_dir, seed):
    keras.utils.set_random_seed(seed)
    builder = datasets.prepare("toybirds", data_dir)
    try:
        clip, preprocessor = load_encoder(source)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    results = probe(clip, preprocessor, builder)
    click.echo(table(results))
    missed = shortcomings(results)
    click.echo("\n".join(["", "Below the gate:", *missed]) if missed else "\nPassed.")
    if path:
        rounded = {n: [round(x, 4) for x in row] for n, row in results.items()}
        path.write_text(json.dumps({"columns": COLUMNS, **rounded}, indent=2) + "\n")


if __name__ == "__main__":
    main()
