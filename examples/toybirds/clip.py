"""Trains a small CLIP on the drawn birds, for GALIP to stand on.

python examples/toybirds/clip.py --out runs/clip
galip train --dataset toybirds --preset galip_small --clip runs/clip

About half an hour on two quiet cores. Contrast alone teaches a CLIP little: a few
colours tell all birds of a batch apart. So one linear head reads every attribute off
the embeddings of images, of captions and of prompts that name a single attribute. The
head is shared, so the embeddings of images and of sentences agree on where an attribute
lies. It is dropped in the end; what remains is an ordinary CLIP.

The vision tower learns first, with the head alone: that is the slow part, and without
texts a step takes half the time. Then both towers learn together.
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
# Factors of the first weights, much as in OpenAI's CLIP. Without them the embedding of
# a sentence tells little but its length at first.
SCALES = {
    "token_embedding": 0.02,
    "text.*position_embedding": 0.01,
    "vision.*(position|class)_embedding": SIZES["hidden_dim"] ** -0.5,
    "vision.*(attention_output|dense_2)/kernel": 8**-0.5,
    "text.*(attention_output|dense_2)/kernel": 4**-0.5,
}
# The longest caption has 37 tokens. What follows the end token changes no embedding.
SEQUENCE_LENGTH = 40
LEARNING_RATE = 1e-3
LAST_RATE = 0.02  # of it, after both towers have learnt
WARM_UP = 100
CONTRAST, PROMPTS = 0.25, 0.5  # weights of these losses
REPORT_EVERY = 50

COUNTS = [len(values) for values in ATTRIBUTES.values()]
# Of each of `VALUES`, which attribute it is of (1) and which of its values it is.
OWN = np.repeat(np.eye(len(COUNTS), dtype="float32"), COUNTS, axis=0)
NUMBERS = np.concatenate([np.arange(count) for count in COUNTS])


class Reader(keras.Model):
    """Reads the attributes off the embeddings of a CLIP.

    Args:
        clip: a `FrozenCLIP`, which is made trainable.
        knows_text: bool. Whether captions are read, too, or images alone.
    """

    def __init__(self, clip, head, knows_text):
        # The losses are; the CLIP computes as it was built.
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
    """Cross entropies `(n, 11)`: a softmax within each attribute."""
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
    """Each image is to find its caption in the batch, each caption its image."""
    matches = ops.arange(ops.shape(logits)[0])
    losses = [
        keras.losses.sparse_categorical_crossentropy(matches, part, True)
        for part in (logits, ops.transpose(logits))
    ]
    return ops.mean(losses)


def view(images):
    """Random crops and flips; noise on 40 % of the images, blur on a fifth."""
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
    """The commonest byte pairs, or fewer that make a single token of every word."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512 + count, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in merges]


def learn(cache):
    """The tokenizer, and what there is to learn: `lessons.Lessons`."""
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
    """The CLIP in float32: keras-hub cannot read presets of a mixed precision."""
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
    help="With images alone, and with texts.",
)
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    default="runs/birds.npy",
    show_default=True,
    help="Where the birds are kept once drawn (700 MB).",
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
