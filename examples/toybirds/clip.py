"""Trains a small CLIP on the drawn birds, for GALIP to stand on.

python examples/toybirds/clip.py --out runs/clip
galip train --dataset toybirds --preset galip_small --clip runs/clip

This takes about half an hour on two idle cores. A contrastive loss alone teaches little
here, because a few colours are enough to tell the birds of a batch apart. So one linear
head predicts every attribute from the embeddings of images, captions and prompts that
name a single attribute. Sharing the head makes images and sentences encode an attribute
in the same place. The head is dropped at the end, which leaves an ordinary CLIP.

The vision tower is trained first, with the head alone, because it learns slowly and a
step without text takes half the time. Then both towers are trained together.
"""

import itertools
import json
import re
from pathlib import Path

import click
import keras
import keras_hub
import lessons
import numpy as np
import tensorflow as tf
import tokenizers
from keras import layers, ops
from lessons import VALUES

from galip_keras import FrozenCLIP, GALIPTextToImagePreprocessor
from galip_keras.console import say
from galip_keras.datasets.toybirds.birds import ATTRIBUTES, bird
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.random_clip import byte_pair_tokenizer, random_clip

SIZES = ARCHITECTURES["galip_small"]["random_clip"]
SIZE = SIZES["image_size"]
# Scales of the initial weights, much as in OpenAI's CLIP. Without them a sentence
# embedding encodes little but the length of the sentence at first.
SCALES = {
    "token_embedding": 0.02,
    "text.*position_embedding": 0.01,
    "vision.*(position|class)_embedding": SIZES["hidden_dim"] ** -0.5,
    "vision.*(attention_output|dense_2)/kernel": 8**-0.5,
    "text.*(attention_output|dense_2)/kernel": 4**-0.5,
}
# The longest caption has 37 tokens. Padding after the end token changes nothing.
SEQUENCE_LENGTH = 40
LEARNING_RATE = 1e-3
LAST_RATE = 0.02  # the fraction of it that is left at the end
WARM_UP = 100
CONTRAST, PROMPTS = 0.25, 0.5  # loss weights
REPORT_EVERY = 50

COUNTS = [len(values) for values in ATTRIBUTES.values()]
# For each of `VALUES`: a one-hot row for its attribute, and its index within it.
OWN = np.repeat(np.eye(len(COUNTS), dtype="float32"), COUNTS, axis=0)
NUMBERS = np.concatenate([np.arange(count) for count in COUNTS])


class Reader(keras.Model):
    """Predicts the attributes of a bird from the embeddings of a CLIP.

    Args:
        clip: a `FrozenCLIP`. It is made trainable.
        head: a `keras.layers.Dense` with an output for each of `lessons.VALUES`.
        knows_text: bool. Whether to train on captions as well as on images.
    """

    def __init__(self, clip, head, knows_text):
        # The losses are computed in float32. The CLIP keeps its own precision.
        super().__init__(dtype="float32")
        self.clip = clip
        self.clip.trainable = True
        self.clip.clip.text_encoder.trainable = knows_text
        self.clip.clip.text_projection.trainable = knows_text
        self.clip.clip.clip_head.trainable = knows_text
        self.head = head
        self.knows_text = knows_text
        if knows_text:
            scale = keras.initializers.Constant(np.log(10.0))
            self.prompt_scale = self.add_weight((), scale, name="prompt_scale")

    def call(self, batch):
        _, images = self.clip.extract_features_and_embed(batch["images"])
        if not self.knows_text:
            return {"images": self.head(images)}
        pairs = ops.reshape(batch["token_ids"], (-1, batch["token_ids"].shape[-1]))
        texts = self.clip.embed_text(ops.concatenate([pairs, batch["prompts"]]))
        count = ops.shape(pairs)[0]
        captions, prompts = texts[:count], texts[count:]
        full = ops.normalize(captions[::2], axis=-1)
        images_1 = ops.normalize(images, axis=-1)
        scale = ops.exp(ops.minimum(self.clip.clip.clip_head.logit_scale, 4.6))
        prompt_scale = ops.exp(ops.minimum(self.prompt_scale, 4.0))
        return {
            "images": self.head(images),
            "captions": self.head(captions),
            "prompts": self.head(prompts),
            "pairs": scale * images_1 @ ops.transpose(full),
            "nearest": prompt_scale
            * images_1
            @ ops.transpose(ops.normalize(prompts, axis=-1)),
        }

    def compute_loss(self, x, y, found, sample_weight=None, training=True):
        loss = ops.mean(entropies(found["images"], x["labels"]))
        if not self.knows_text:
            return loss
        named = ops.reshape(x["named"], (-1, len(COUNTS)))
        of_captions = entropies(found["captions"], ops.repeat(x["labels"], 2, axis=0))
        of_prompts = entropies(found["prompts"], OWN.astype(int) * NUMBERS[:, None])
        return (
            loss
            + average(of_captions[::2], named[::2])
            + average(of_captions[1::2], named[1::2])
            + average(of_prompts, OWN)
            + CONTRAST * contrast(found["pairs"])
            + PROMPTS * ops.mean(entropies(found["nearest"], x["labels"]))
        )


def entropies(logits, labels):
    """Cross entropies `(n, 11)`, one softmax per attribute."""
    parts = ops.split(logits, np.cumsum(COUNTS)[:-1], axis=1)
    return ops.stack(
        [
            keras.losses.sparse_categorical_crossentropy(labels[:, i], part, True)
            for i, part in enumerate(parts)
        ],
        axis=1,
    )


def average(values, weights):
    return ops.sum(values * weights) / ops.sum(weights)


def contrast(logits):
    """CLIP's loss: match images with captions, and captions with images."""
    matches = ops.arange(ops.shape(logits)[0])
    losses = [
        keras.losses.sparse_categorical_crossentropy(matches, part, True)
        for part in (logits, ops.transpose(logits))
    ]
    return ops.mean(losses)


def view(images):
    """Crop and flip at random. Add noise to 40 % of the images and blur to 20 %."""
    count = images.shape[0]
    corners = tf.random.uniform((count, 2), 0, lessons.SIZE - SIZE + 1, tf.int32)
    for axis in (0, 1):
        rows = corners[:, axis, None] + tf.range(SIZE)
        images = tf.gather(images, rows, axis=axis + 1, batch_dims=1)
    images = tf.cast(images, tf.float32) / 127.5 - 1.0
    one_each = (count, 1, 1, 1)
    flipped = tf.random.uniform(one_each) < 0.5
    images = tf.where(flipped, images[:, :, ::-1], images)
    amount = tf.nn.relu(tf.random.uniform(one_each, -0.45, 0.3))
    images += amount * tf.random.normal(tf.shape(images))
    blurred = tf.nn.avg_pool2d(images, 3, 1, "SAME")
    amount = tf.nn.relu(tf.random.uniform(one_each, -4.0, 1.0))
    return images + amount * (blurred - images)


def dataset(known, batch_size, seed):
    stream = lessons.batches(known, batch_size, np.random.default_rng(seed))
    signature = {
        name: tf.TensorSpec(value.shape, value.dtype)
        for name, value in next(stream).items()
    }
    batches = tf.data.Dataset.from_generator(lambda: stream, output_signature=signature)
    return batches.map(lambda x: {**x, "images": view(x["images"])}).prefetch(2)


def learn_merges(texts, count=500):
    """Learn at most `count` byte-pair merges: enough for one token per word."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512 + count, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in merges]


def learn(cache):
    """Make the tokenizer and the training data, a `lessons.Lessons`."""
    rng = np.random.default_rng(1)
    birds = [bird(seed) for seed in lessons.SEEDS]
    texts, named = lessons.captions(birds, rng)
    phrasings = lessons.prompts(rng)
    tokenizer = byte_pair_tokenizer(
        learn_merges([*texts, *itertools.chain(*phrasings)])
    )
    preprocessor = GALIPTextToImagePreprocessor(tokenizer, SEQUENCE_LENGTH)
    shape = (len(birds), lessons.CAPTIONS, -1)
    return tokenizer, lessons.Lessons(
        lessons.pictures(cache),
        lessons.labels(birds),
        lessons.tokens(texts, preprocessor).reshape(shape),
        named.reshape(shape),
        lessons.repeated(phrasings, preprocessor),
    )


def build_clip(vocabulary_size, seed):
    """Build a `random_clip` with another vocabulary and smaller initial weights."""
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


def train(reader, known, steps, batch_size, seed):
    warm_up = min(WARM_UP, steps // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - warm_up,
        alpha=LAST_RATE if reader.knows_text else 1.0,
        warmup_target=LEARNING_RATE,
        warmup_steps=warm_up,
    )
    reader.compile(
        keras.optimizers.AdamW(rate, 0.02, beta_2=0.98, global_clipnorm=1.0),
        jit_compile=False,
    )

    def report(step, logs):
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            say(f"step {step + 1} of {steps}: loss {logs['loss']:.3f}")

    reader.fit(
        dataset(known, batch_size, seed),
        steps_per_epoch=steps,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=report)],
    )


def save(clip, tokenizer, folder):
    """Save the CLIP in float32, because keras-hub cannot load mixed precision."""
    keras.config.set_dtype_policy("float32")
    config = json.loads(
        json.dumps(clip.get_config()).replace("mixed_bfloat16", "float32")
    )
    plain = keras_hub.models.CLIPBackbone.from_config(config)
    plain.set_weights(clip.get_weights())
    plain.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))


@click.command(help=__doc__.splitlines()[0])
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    nargs=2,
    default=(1000, 2300),
    show_default=True,
    help="Steps on images alone, then steps on images and captions.",
)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    default="runs/birds.npy",
    show_default=True,
    help="Cache of the drawn birds (700 MB).",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(out, steps, batch_size, images, seed):
    if out.exists():
        raise click.UsageError(f"{out} exists: give another --out")
    keras.utils.set_random_seed(seed)
    tokenizer, known = learn(images)
    keras.config.set_dtype_policy("mixed_bfloat16")
    clip = build_clip(tokenizer.vocabulary_size(), seed)
    frozen = FrozenCLIP(clip, feature_layers=(SIZES["num_layers"] - 1,))
    head = layers.Dense(len(VALUES), dtype="float32")
    for knows_text, count in zip((False, True), steps):
        train(Reader(frozen, head, knows_text), known, count, batch_size, seed)
    save(clip, tokenizer, out)


if __name__ == "__main__":
    main()
