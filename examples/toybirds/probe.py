"""Measures what a CLIP knows of the drawn birds, attribute by attribute.

python examples/toybirds/probe.py runs/clip

The generator sees only the embedding of a caption, and the similarity loss sees only
the embedding of an image. Anything that these embeddings lack cannot be learnt. The
table has the accuracy on the test split for each attribute:

- chance: what guessing would give;
- sentence, linear: a softmax regression on the embeddings of captions that name every
  attribute, fitted on the training split;
- sentence, MLP: the same with one hidden layer;
- image, prompts: the prompts of one value ("a bird with a red crown") that are closest
  to the embedding of the image;
- image, linear: a softmax regression on the embeddings of images.
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
GROUP = 250  # embedded at once
PROMPTS = 20  # per value
# The longest caption has 37 tokens.
SEQUENCE_LENGTH = 40

COLUMNS = (
    "chance",
    "sentence, linear",
    "sentence, MLP",
    "image, prompts",
    "image, linear",
)
# The gate for training a GALIP, in the order of the columns: colours, then the rest.
COLORS = (0.0, 0.93, 0.97, 0.93, 0.95)
COLORED = ("body", "wing", "crown", "belly", "beak_color")
SHAPES = (0.0, 0.90, 0.90, 0.90, 0.90)


def load_encoder(source):
    """Load CLIP and preprocessor from a GALIP model or a CLIP preset folder."""
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
    """Embed captions or images. Return an array, not normalised."""
    parts = [function(inputs[i : i + GROUP]) for i in range(0, len(inputs), GROUP)]
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


def read(x, y, x_test, y_test, hidden=0):
    """Fit a classifier for each attribute and return its accuracy on the test data."""
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
    """Classify images by their closest prompts. Return the accuracy per attribute."""
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
    """Measure a CLIP. Return a list in the order of `COLUMNS` for each attribute."""

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
    """Describe the results that do not pass the gate."""
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
    """Format the results as a Markdown table."""
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    for name, row in results.items():
        lines.append(f"| {name} | {' | '.join(f'{100 * x:.1f}' for x in row)} |")
    return "\n".join(lines)


@click.command(help=__doc__.splitlines()[0])
@click.argument("source")
@click.option(
    "--json", "path", type=click.Path(path_type=Path), help="Also write JSON."
)
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
