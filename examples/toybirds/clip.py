"""Trains a small CLIP on the drawn birds, for GALIP to stand on.

python examples/toybirds/clip.py --out runs/clip
galip train --dataset toybirds --preset galip_small --clip runs/clip

About half an hour on two cores. It sees the pictures as `FrozenCLIP` will show them to
GALIP, and it knows nothing but these birds. Birds drawn by chance differ so much that a
few colours tell all of a batch apart, and nothing else would be learnt. So half of a
batch are families of birds that differ in some attributes, or in which part has which
colour.

A generator that learns from a small CLIP soon finds what fools it. This one is hard to
fool: once it has learnt from clean pictures, half of them are noisy or blurred, and all
are changed a little to where it would err the most.
"""

import json
import re
from pathlib import Path

import click
import keras
import keras_hub
import numpy as np
import tensorflow as tf
import tokenizers
from birds import SIZE, load, middle
from evaluate import embed_captions, embed_images
from keras import layers, ops

from galip_keras import FrozenCLIP, backend, datasets
from galip_keras.console import say
from galip_keras.datasets import pipeline
from galip_keras.datasets.toybirds.birds import ATTRIBUTES, captions, is_held_out
from galip_keras.datasets.toybirds.drawing import draw
from galip_keras.metrics import r_precision
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor
from galip_keras.models.random_clip import byte_pair_tokenizer, random_clip

SIZES = ARCHITECTURES["galip_small"]["random_clip"]
# Factors of the first weights, much as in OpenAI's CLIP. Without them the embedding of
# a sentence tells little but its length at first, and training never gets past the
# background to the colours.
SCALES = {
    "token_embedding": 0.02,
    "text.*position_embedding": 0.01,
    "vision.*(position|class)_embedding": 128**-0.5,
    "vision.*(attention_output|dense_2)/kernel": 8**-0.5,
    "text.*(attention_output|dense_2)/kernel": 4**-0.5,
}
# The longest caption has 37 tokens. What follows the end token changes no embedding.
SEQUENCE_LENGTH = 40
LEARNING_RATE = 6e-4
EPOCH = 50  # steps

FAMILY = 4  # a bird and others like it
PARTS = ("body", "wing", "crown", "belly")
FAMILIES = 5000

# The most that a picture in [-1, 1] is changed by: standard deviation of noise, and a
# step against the CLIP.
NOISE = 0.3
STEP = 0.08
# Standard deviation of how far decoys are warped, in pixels.
WARP = 5.0
# The part of the steps before that: from the start it would keep it from learning.
EASY = 0.6


class Contrastive(keras.Model):
    """Each picture is to find its caption in the batch, each caption its picture."""

    def __init__(self, clip, seed):
        super().__init__()
        self.clip = clip
        # A `FrozenCLIP` freezes itself.
        self.clip.trainable = True
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.is_hard = False

    def call(self, batch, training=False):
        images = batch["images"]
        sentences = self.clip.embed_text(batch["token_ids"])
        if training:
            images = ops.concatenate([images, self.decoys(images[::2])])
        if training and self.is_hard:
            images = self.mislead(self.degrade(images), ops.stop_gradient(sentences))
        return self.logits(images, sentences)

    def logits(self, images, sentences):
        """Of each picture that has a sentence, and of each sentence among all."""
        _, images = self.clip.extract_features_and_embed(images)
        # CLIP's own head: cosines, times a scale that is learnt.
        of_images, of_sentences = self.clip.clip.clip_head(images, sentences)
        return of_images[: ops.shape(of_images)[1]], of_sentences

    def compute_loss(self, x, y, logits, sample_weight=None, training=True):
        matches = ops.arange(ops.shape(logits[0])[0])
        losses = [
            keras.losses.sparse_categorical_crossentropy(matches, part, True)
            for part in logits
        ]
        return ops.mean(losses)

    def decoys(self, images):
        """The pictures with all their colours, but no birds any more.

        Warped, or with their patches in another order, or blurred.
        """
        flat = ops.reshape(images, (-1, SIZE * SIZE, 3))
        shape = ops.shape(images)[:1]
        flow = WARP * keras.random.normal((*shape, 9, 9, 2), seed=self.seed_generator)
        flow = ops.image.resize(flow, (SIZE, SIZE), data_format="channels_last")
        places = ops.stack(ops.meshgrid(*[ops.arange(SIZE)] * 2, indexing="ij"), -1)
        places = ops.clip(places + ops.cast(ops.round(flow), "int32"), 0, SIZE - 1)
        warped = self.rearranged(flat, SIZE * places[..., 0] + places[..., 1])

        patch, side = SIZES["patch_size"], SIZE // SIZES["patch_size"]
        keys = keras.random.uniform((*shape, side**2), seed=self.seed_generator)
        order = ops.reshape(ops.argsort(keys, axis=-1), (-1, side, 1, side, 1))
        inside = ops.arange(patch)
        rows = order // side * patch + inside[None, None, :, None, None]
        columns = order % side * patch + inside[None, None, None, None, :]
        shuffled = self.rearranged(flat, SIZE * rows + columns)

        blurred = images
        for _ in range(2):
            blurred = ops.average_pool(blurred, 9, 1, "same", "channels_last")
        kind = self.amounts(images, 0.0, 3.0)
        return ops.where(kind < 1, warped, ops.where(kind < 2, shuffled, blurred))

    def rearranged(self, flat, source):
        source = ops.reshape(source, (-1, SIZE * SIZE, 1))
        return ops.reshape(
            ops.take_along_axis(flat, source, axis=1), (-1, SIZE, SIZE, 3)
        )

    def degrade(self, images):
        """Adds noise to half of the pictures, and blurs half of them."""
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        images = images + self.amounts(images, -NOISE, NOISE) * noise
        blurred = ops.average_pool(images, 3, 1, "same", "channels_last")
        return images + self.amounts(images, -1.0, 1.0) * (blurred - images)

    def mislead(self, images, sentences):
        """Takes a step, of a size from 0 to `STEP`, to where the loss is higher."""

        def loss(images):
            return self.compute_loss(None, None, self.logits(images, sentences)), ()

        _, (gradients,) = backend.value_and_input_gradient(loss, images)
        step = self.amounts(images, 0.0, STEP) * ops.sign(gradients)
        return ops.stop_gradient(images + step)

    def amounts(self, images, least, most):
        """A random number a picture, those below 0 made 0."""
        shape = (ops.shape(images)[0], 1, 1, 1)
        return ops.relu(
            keras.random.uniform(shape, least, most, seed=self.seed_generator)
        )


def changed(bird, rng, names):
    """The bird with other values of `names`."""
    others = {
        name: rng.choice([v for v in ATTRIBUTES[name] if v != getattr(bird, name)])
        for name in names
    }
    return bird._replace(**others)


def swapped(bird, rng):
    """The bird with the colours of two parts exchanged, or another where they agree."""
    one, two = rng.permutation(PARTS)[:2]
    if getattr(bird, one) == getattr(bird, two):
        return changed(bird, rng, [one])
    return bird._replace(**{one: getattr(bird, two), two: getattr(bird, one)})


def relative(bird, rng):
    """A bird like this one, and like those of training.

    Half of them have the same colours elsewhere: it is not enough to know which there
    are. The others have one to three other attributes.
    """
    while True:
        if rng.integers(2):
            other = swapped(bird, rng)
        else:
            names = rng.permutation(list(ATTRIBUTES))[: rng.integers(1, 4)]
            other = changed(bird, rng, names)
        if not is_held_out(other):
            return other


def families(builder, seed):
    """Families, shuffled without end: pictures `(FAMILY, 64, 64, 3)` and captions."""
    rng = np.random.default_rng(seed)
    images, drawn, _ = load(builder, "train", FAMILIES)
    pictures, texts = [], []
    for i, bird in enumerate(drawn):
        family = [bird, *(relative(bird, rng) for _ in range(FAMILY - 1))]
        # Seeds of no split. A family shares its place, its shades and its background.
        look = 5_000_000 + i
        pictures.append([draw(member, look, images.shape[1]) for member in family])
        texts.append([captions(m, FAMILY * look + j)[0] for j, m in enumerate(family)])
    crop, flip = layers.RandomCrop(SIZE, SIZE), layers.RandomFlip("horizontal")

    def view(images, texts):
        images = tf.cast(images, tf.float32) / 127.5 - 1.0
        return flip(crop(images, training=True), training=True), texts

    dataset = tf.data.Dataset.from_tensor_slices((np.array(pictures), texts))
    return dataset.shuffle(FAMILIES).repeat().map(view)


def batches(builder, preprocessor, groups, batch_size, seed, skip):
    """Half of a batch are birds by chance with any caption, half are families."""
    half = batch_size // 2
    chance = pipeline.training_batches(
        builder, preprocessor, crop_size=SIZE, batch_size=half, seed=seed, skip=skip
    )

    def join(batch, family):
        images, texts = family
        images = tf.reshape(images, (half, SIZE, SIZE, 3))
        ids = tf.cast(preprocessor(tf.reshape(texts, (half,))), tf.int32)
        ids = tf.ensure_shape(ids, (half, None))
        return {
            "images": tf.concat([batch["images"], images], 0),
            "token_ids": tf.concat([batch["token_ids"], ids], 0),
        }

    grouped = groups.batch(half // FAMILY)
    return tf.data.Dataset.zip(chance, grouped).map(join).prefetch(4)


def report(epoch, logs):
    say(f"step {(epoch + 1) * EPOCH}: loss {logs['loss']:.3f}")


def learn_merges(captions, count=500):
    """The commonest byte pairs, or fewer that make a single token of every word."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512 + count, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in merges]


def build_clip(vocabulary_size, seed):
    """What `random_clip` builds, with another vocabulary and smaller first weights."""
    drawn, _ = random_clip(**SIZES, seed=seed)
    config = drawn.get_config()
    config["text_encoder"]["config"]["vocabulary_size"] = vocabulary_size
    clip = keras_hub.models.CLIPBackbone.from_config(config)
    for weight, unit in zip(clip.weights, drawn.weights):
        if weight.shape != unit.shape:
            unit = keras.random.normal(weight.shape)
        for path, scale in SCALES.items():
            if re.search(path, weight.path):
                unit = scale * unit
        weight.assign(unit)
    return clip


def retrieve(clip, preprocessor, builder):
    """How often a picture finds its caption among 100, and a caption its picture.

    On the test split, by the captions that name every attribute: "a red bird" would be
    true of ten pictures in a hundred.
    """
    pictures, _, texts = load(builder, "test")
    texts = embed_captions(clip, preprocessor, [text[0] for text in texts])
    images = embed_images(clip, middle(pictures))
    return r_precision(images, texts), r_precision(texts, images)


def told_apart(clip, preprocessor, builder):
    """How often a picture prefers its caption to one that has this wrong."""
    rng = np.random.default_rng(0)
    pictures, drawn, _ = load(builder, "test")
    images = embed_images(clip, middle(pictures))

    def cosines(drawn):
        texts = [captions(bird, i)[0] for i, bird in enumerate(drawn)]
        return np.sum(images * embed_captions(clip, preprocessor, texts), axis=1)

    right = cosines(drawn)
    wrong = {
        name: cosines([changed(bird, rng, [name]) for bird in drawn])
        for name in ATTRIBUTES
    }
    exchanged = [swapped(bird, rng) for bird in drawn]
    wrong["places of two colours"] = cosines(exchanged)
    return {name: np.mean(right > values) for name, values in wrong.items()}


@click.command(help=__doc__.splitlines()[0])
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option("--steps", type=click.IntRange(min=1), default=2600, show_default=True)
@click.option("--batch-size", type=click.IntRange(8), default=64, show_default=True)
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(out, steps, batch_size, data_dir, seed):
    if out.exists():
        raise click.UsageError(f"{out} exists: give another --out")
    if steps % EPOCH:
        raise click.UsageError(f"--steps must be a multiple of {EPOCH}, not {steps}")
    if batch_size % (2 * FAMILY):
        raise click.UsageError(
            f"--batch-size must be a multiple of {2 * FAMILY}, not {batch_size}"
        )
    keras.utils.set_random_seed(seed)
    builder = datasets.prepare("toybirds", data_dir)
    records = pipeline.records(builder, pipeline.shards(builder, "train"))
    texts = [c.decode() for r in records.as_numpy_iterator() for c in r["captions"]]
    tokenizer = byte_pair_tokenizer(learn_merges(texts))
    preprocessor = GALIPTextToImagePreprocessor(tokenizer, SEQUENCE_LENGTH)
    clip = build_clip(tokenizer.vocabulary_size(), seed)
    frozen = FrozenCLIP(clip, feature_layers=(SIZES["num_layers"] - 1,))
    model = Contrastive(frozen, seed)
    warm_up = min(100, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=LEARNING_RATE, warmup_steps=warm_up
    )
    model.compile(keras.optimizers.Adam(rate, beta_2=0.98, global_clipnorm=1.0))
    groups = families(builder, seed)
    epochs = steps // EPOCH
    for first, last in ((0, round(EASY * epochs)), (round(EASY * epochs), epochs)):
        model.is_hard = first > 0
        model.make_train_function(force=True)
        model.fit(
            batches(builder, preprocessor, groups, batch_size, seed, first * EPOCH),
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=EPOCH,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
        )
        apart = told_apart(frozen, preprocessor, builder)
        say(", ".join(f"{name} {right:.1%}" for name, right in apart.items()))
    found = retrieve(frozen, preprocessor, builder)
    say(f"test: captions found {found[0]:.1%}, pictures found {found[1]:.1%}")
    clip.save_to_preset(str(out))
    tokenizer.save_to_preset(str(out))


if __name__ == "__main__":
    main()
