"""Trains a network that reads the attributes of a bird off its picture.

python examples/toybirds/classifier.py

It judges generated birds: neither CLIP nor GALIP ever sees it, nor it anything but
drawn birds. Those of the training split alone would teach it that no red bird has blue
wings: it sees some that were held out, too. And some noise and blur, for generated
pictures have their own. About a quarter of an hour on two cores.
"""

from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf
from birds import SIZE, labels, load, middle, to_unit
from keras import layers

from galip_keras import datasets
from galip_keras.console import say
from galip_keras.datasets.toybirds.birds import ATTRIBUTES, bird
from galip_keras.datasets.toybirds.drawing import draw
from galip_keras.metrics.classifier import FILE, build, features

# Birds with the pairs that training never shows, as many as there would be by chance.
# Their seeds are of no split.
HELD_OUT = range(4_000_000, 4_002_300)

NOISE = 0.1
LEARNING_RATE = 2e-3


def read(classifier, images):
    """Features `(n, 128)` of uint8 pictures, and what each shows, by attribute."""
    both = keras.Model(
        classifier.input, [features(classifier).output, classifier.output]
    )
    found, logits = both.predict(to_unit(images), batch_size=100, verbose=0)
    return found, {name: np.argmax(x, axis=1) for name, x in logits.items()}


def training_birds(builder):
    images, drawn, _ = load(builder, "train")
    others = [bird(seed, held_out=True) for seed in HELD_OUT]
    size = images.shape[1]
    pictures = [draw(b, seed, size) for b, seed in zip(others, HELD_OUT)]
    return np.concatenate([images, np.stack(pictures)]), [*drawn, *others]


def accuracies(classifier, builder, split):
    images, drawn, _ = load(builder, split)
    _, found = read(classifier, middle(images))
    return {name: np.mean(found[name] == y) for name, y in labels(drawn).items()}


@click.command(help=__doc__.splitlines()[0])
@click.option(
    "--out", type=click.Path(path_type=Path), default=FILE, help="A .weights.h5 file."
)
@click.option("--epochs", type=click.IntRange(min=1), default=14, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(out, epochs, batch_size, data_dir, seed):
    keras.utils.set_random_seed(seed)
    builder = datasets.prepare("toybirds", data_dir)
    images, drawn = training_birds(builder)
    views = [
        layers.RandomCrop(SIZE, SIZE),
        layers.RandomFlip("horizontal"),
        layers.RandomGaussianBlur(0.5, 3, 1.0, value_range=(-1, 1)),
        layers.GaussianNoise(NOISE),
    ]

    def view(images, y):
        images = tf.cast(images, tf.float32) / 127.5 - 1.0
        for layer in views:
            images = layer(images, training=True)
        return images, y

    dataset = tf.data.Dataset.from_tensor_slices((images, labels(drawn)))
    # A crop is of all pictures that are cropped together.
    dataset = dataset.shuffle(len(images)).batch(16).map(view).unbatch()
    dataset = dataset.batch(batch_size, drop_remainder=True)
    classifier = build()
    steps = epochs * (len(images) // batch_size)
    classifier.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - 100, warmup_target=LEARNING_RATE, warmup_steps=100
            )
        ),
        loss={
            name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for name in ATTRIBUTES
        },
    )
    classifier.fit(
        dataset.prefetch(2),
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: say(
                    f"epoch {epoch + 1}: loss {logs['loss']:.3f}"
                )
            )
        ],
    )
    for split in ("test", "compositions"):
        right = accuracies(classifier, builder, split)
        say(f"{split}: " + ", ".join(f"{n} {100 * x:.1f} %" for n, x in right.items()))
    # Without what the optimizer keeps.
    plain = build()
    plain.set_weights(classifier.get_weights())
    plain.save_weights(out)


if __name__ == "__main__":
    main()
