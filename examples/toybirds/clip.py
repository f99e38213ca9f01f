"""Trains a small CLIP on the drawn birds, for GALIP to stand on.

python examples/toybirds/clip.py --out runs/clip
galip train --dataset toybirds --preset galip_tiny --clip runs/clip

About a quarter of an hour on two cores. It has CLIP's architecture and loss, and it sees
the pictures as `FrozenCLIP` shows them to GALIP. What it knows are drawn birds.
"""

import json
from pathlib import Path

import click
import keras
import keras_hub
import numpy as np
import tensorflow as tf
import tokenizers
from keras import ops

from galip_keras import FrozenCLIP, datasets
from galip_keras.callbacks import say
from galip_keras.clip import byte_pair_tokenizer, random_clip
from galip_keras.datasets import pipeline
from galip_keras.text_to_image import GALIPTextToImagePreprocessor

IMAGE_SIZE = 64
# The longest caption has 37 tokens. What follows the end token changes no embedding.
SEQUENCE_LENGTH = 40
LEARNING_RATE = 1e-3
GROUP = 100


class Contrastive(keras.Model):
    """Each picture is to find its caption in the batch, each caption its picture."""

    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def call(self, batch):
        _, images = self.clip.extract_features_and_embed(batch["images"])
        sentences = self.clip.embed_text(batch["token_ids"])
        # CLIP's own head: cosines, times a scale that is learnt.
        return self.clip.clip.clip_head(images, sentences)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        matches = ops.arange(ops.shape(y_pred[0])[0])
        losses = [
            keras.losses.sparse_categorical_crossentropy(matches, logits, True)
            for logits in y_pred
        ]
        return ops.mean(ops.stack(losses))


class Report(keras.callbacks.Callback):
    """Tells the loss on standard error after each epoch, and stops at the last step."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.step = 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step == self.steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        say(f"step {self.step} of {self.steps}: loss {logs['loss']:.3f}")


def learn_merges(captions, count=500):
    """The commonest byte pairs; fewer where every word is a single token before."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512 + count, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    return [
        " ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]


def build_clip(vocabulary_size, seed):
    """A `keras_hub.models.CLIPBackbone` of random weights and its own vocabulary."""
    drawn, _ = random_clip(
        image_size=IMAGE_SIZE,
        patch_size=8,
        hidden_dim=128,
        num_layers=4,
        num_heads=4,
        embedding_dim=64,
        text_hidden_dim=128,
        text_num_layers=2,
        text_num_heads=4,
        seed=seed,
    )
    config = drawn.get_config()
    config["text_encoder"]["config"]["vocabulary_size"] = vocabulary_size
    clip = keras_hub.models.CLIPBackbone.from_config(config)
    # Keras' own first weights are so small that attention takes long to begin.
    for weight, other in zip(clip.weights, drawn.weights):
        is_same = weight.shape == other.shape
        weight.assign(other if is_same else keras.random.normal(weight.shape))
    return clip


def retrieval(model, preprocessor, builder):
    """How often a picture finds its full caption among 100, and a caption its picture.

    The means over all groups of 100 of the test split. The full caption is a bird's
    first one, which names every attribute; "a red bird" would fit ten of 100 pictures.
    """

    def example(record):
        image = tf.image.resize_with_crop_or_pad(
            tf.io.decode_jpeg(record["image"], ratio=2), IMAGE_SIZE, IMAGE_SIZE
        )
        return tf.cast(image, tf.float32) / 127.5 - 1.0, record["captions"][0]

    records = pipeline.records(builder, pipeline.shards(builder, "test"))
    hits = []
    for images, captions in records.map(example).batch(GROUP, drop_remainder=True):
        batch = {"images": images, "token_ids": preprocessor(captions)}
        logits = model.predict_on_batch(batch)
        hits.append([np.mean(np.argmax(x, 1) == np.arange(GROUP)) for x in logits])
    return np.mean(hits, axis=0)


@click.command(help=__doc__.splitlines()[0])
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True)
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def main(out, steps, batch_size, data_dir, seed):
    if out.exists():
        raise click.UsageError(f"{out} exists: give another --out")
    keras.utils.set_random_seed(seed)
    builder = datasets.prepare("toybirds", data_dir)
    records = pipeline.records(builder, pipeline.shards(builder, "train"))
    captions = [c.decode() for r in records.as_numpy_iterator() for c in r["captions"]]
    tokenizer = byte_pair_tokenizer(learn_merges(captions))
    preprocessor = GALIPTextToImagePreprocessor(tokenizer, SEQUENCE_LENGTH)
    clip = FrozenCLIP(
        build_clip(tokenizer.vocabulary_size(), seed), feature_layers=(3,)
    )
    clip.trainable = True
    model = Contrastive(clip)
    warm_up = steps // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=LEARNING_RATE, warmup_steps=warm_up
    )
    model.compile(keras.optimizers.Adam(rate))
    batches = pipeline.training_batches(
        builder, preprocessor, crop_size=IMAGE_SIZE, batch_size=batch_size, seed=seed
    )
    epochs = -(-steps // 50)
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=50,
        shuffle=False,
        verbose=0,
        callbacks=[Report(steps)],
    )
    found = retrieval(model, preprocessor, builder)
    say(f"test: captions found {found[0]:.1%}, pictures found {found[1]:.1%}")
    clip.clip.save_to_preset(str(out))
    tokenizer.save_to_preset(str(out))


if __name__ == "__main__":
    main()
