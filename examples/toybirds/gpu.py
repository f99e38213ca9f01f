"""Trains GALIP on the drawn birds on a GPU with JAX, without TensorFlow.

python examples/toybirds/gpu.py pack runs/clip birds.npz         # TensorFlow, on a CPU
KERAS_BACKEND=jax python examples/toybirds/gpu.py train birds.npz runs/gpu --steps 60000
python examples/toybirds/gpu.py preset runs/gpu --clip runs/clip --out runs/gpu/preset

The first command writes everything that training needs to one file: images, embeddings
of captions and of falsified captions, and the CLIP. The second command reads nothing
else and resumes from its newest checkpoint. The third converts that to a preset.
"""

import json
from pathlib import Path

import click
import keras
import keras_hub
import numpy as np

from galip_keras import GALIP, FrozenCLIP, MateD, MateG
from galip_keras.console import say
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.models.optimizers import adam
from galip_keras.training.checkpoints import Checkpoint
from galip_keras.training.collapse import Guard

SPEC = ARCHITECTURES["galip_small"]
SETTINGS = SPEC["training"]
SIZE = SPEC["random_clip"]["image_size"]
WRONG = 3  # falsified versions of each caption
STREAM = 20230119  # keeps the seed apart from its other uses
REPORT_EVERY = 500


def pack(clip, preprocessor, images, captions, path):
    """Write the file that `train` reads.

    Args:
        clip: a `FrozenCLIP`.
        preprocessor: a `GALIPTextToImagePreprocessor`.
        images: uint8 array `(n, height, height, 3)`, larger than the crops.
        captions: list of `n` lists of strings, all of the same length.
        path: path of the `.npz` file.
    """
    from galip_keras.datasets.mismatches import contradict

    rng = np.random.default_rng(STREAM)
    texts = [text for row in captions for text in row]
    wrong = [contradict(text, rng) for text in texts for _ in range(WRONG)]
    embedded = embed(clip, preprocessor, texts)
    mismatched = embed(clip, preprocessor, [text or "" for text in wrong])
    # Captions that cannot be falsified: the next caption in the batch is used instead.
    mismatched[[text is None for text in wrong]] = np.nan
    shape = (len(images), -1, embedded.shape[-1])
    weights = {f"weight_{i:03}": w for i, w in enumerate(clip.clip.get_weights())}
    np.savez_compressed(
        path,
        images=images,
        embeddings=embedded.reshape(shape),
        mismatched=mismatched.reshape(*shape[:2], WRONG, shape[-1]),
        clip_config=json.dumps(clip.clip.get_config()),
        **weights,
    )


def embed(clip, preprocessor, texts, at_once=500):
    parts = [texts[i : i + at_once] for i in range(0, len(texts), at_once)]
    parts = [clip.embed_text(preprocessor(part)) for part in parts]
    return np.concatenate([np.asarray(p) for p in parts]).astype("float16")


def load_clip(data):
    """Build the CLIP of a packed file."""
    backbone = keras_hub.models.CLIPBackbone.from_config(
        json.loads(str(data["clip_config"]))
    )
    names = sorted(name for name in data if name.startswith("weight_"))
    backbone.set_weights([data[name] for name in names])
    return FrozenCLIP(backbone, feature_layers=SPEC["feature_layers"])


def build(clip, batch_size, average, seed):
    """Build and compile a GAN as `galip train` does."""
    keras.utils.set_random_seed(seed)
    gan = GALIP(
        MateG(clip, **SPEC["generator"]),
        MateD.for_clip(clip, **SPEC["discriminator"]),
        average=True,
        seed=seed,
        **{k: v for k, v in SETTINGS.items() if k.endswith("_weight")},
    )
    # A constant schedule, so that the saved optimizer state matches `galip train`.
    rates = [
        keras.optimizers.schedules.CosineDecay(SETTINGS[name], 1, alpha=1.0)
        for name in ("generator_lr", "discriminator_lr")
    ]
    gan.compile(*map(adam, rates), average_half_life=average / batch_size)
    return gan


def batches(data, batch_size, first, hard_mismatches, latent_dim, seed):
    """Yield batches from a step on. Each depends on the seed and its step only."""
    images, embeddings, wrong = (
        data[name] for name in ("images", "embeddings", "mismatched")
    )
    rows, step = np.arange(batch_size), first
    while True:
        rng = np.random.default_rng((STREAM, seed, step))
        chosen = rng.integers(0, len(images), batch_size)
        caption = rng.integers(0, embeddings.shape[1], batch_size)
        text = embeddings[chosen, caption].astype("float32")
        hard = wrong[chosen, caption, rng.integers(0, wrong.shape[2], batch_size)]
        is_hard = rng.random(batch_size) < hard_mismatches
        is_hard &= ~np.isnan(hard).any(axis=1)
        yield {
            "images": np.stack([crop(images[i], rng) for i in chosen]),
            "text_embeddings": text,
            "mismatched_embeddings": np.where(
                is_hard[:, None], hard.astype("float32"), text[np.roll(rows, -1)]
            ),
            "noise": rng.standard_normal((batch_size, latent_dim), "float32"),
        }
        step += 1


def crop(image, rng):
    """Crop at random and flip half of the time. Return float32 in [-1, 1]."""
    top, left = rng.integers(0, image.shape[0] - SIZE + 1, 2)
    image = image[top : top + SIZE, left : left + SIZE]
    image = image[:, :: 1 - 2 * rng.integers(2)]
    return image.astype("float32") / 127.5 - 1.0


def fit(gan, data, folder, steps, batch_size, save_every, hard_mismatches, seed):
    """Train up to a step, starting from the newest checkpoint in a folder."""
    guard = Guard(True, lambda reason: say(f"Warning: {reason}."))
    checkpoint = Checkpoint(Path(folder, "checkpoints"), save_every, guard)
    first = checkpoint.restore(gan)
    if first >= steps:
        return

    def report(batch, logs):
        if (first + batch + 1) % REPORT_EVERY == 0:
            values = ", ".join(f"{name} {value:.3f}" for name, value in logs.items())
            say(f"step {first + batch + 1}: {values}")

    latent_dim = gan.generator.latent_dim
    stream = batches(data, batch_size, first, hard_mismatches, latent_dim, seed)
    gan.fit(
        ((batch,) for batch in stream),
        steps_per_epoch=steps - first,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_train_batch_end=report),
            checkpoint,
        ],
    )


@click.group(help=__doc__.splitlines()[0])
def main():
    pass


@main.command("pack")
@click.argument("clip", type=click.Path(exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--data-dir", metavar="DIR", help="Where prepared data sets live.")
def pack_(clip, out, data_dir):
    """Pack a CLIP and the training split into the file OUT."""
    from birds import load
    from probe import load_encoder

    from galip_keras import datasets

    images, _, captions = load(datasets.prepare("toybirds", data_dir), "train")
    pack(*load_encoder(clip), images, captions, out)


@main.command("train")
@click.argument("data", type=click.Path(exists=True))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--steps", type=click.IntRange(1), default=60_000, show_default=True)
@click.option("--batch-size", type=click.IntRange(2), default=16, show_default=True)
@click.option("--average", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--save-every", type=click.IntRange(1), default=2000, show_default=True)
@click.option(
    "--hard-mismatches", type=click.FloatRange(0, 1), default=0.5, show_default=True
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def train_(data, run, steps, batch_size, average, save_every, hard_mismatches, seed):
    """Train on the file DATA and write checkpoints to the folder RUN."""
    with np.load(data) as file:
        arrays = dict(file)
    gan = build(load_clip(arrays), batch_size, average, seed)
    Path(run, "checkpoints").mkdir(parents=True, exist_ok=True)
    fit(gan, arrays, run, steps, batch_size, save_every, hard_mismatches, seed)


@main.command("preset")
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--clip", type=click.Path(exists=True), required=True, metavar="FOLDER")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER")
def preset_(run, clip, out):
    """Convert the newest checkpoint of RUN (averaged generator) to a preset."""
    from galip_keras import GALIPBackbone, GALIPTextToImage
    from galip_keras.presets.fine_tuning import DISCRIMINATOR, TRAINING
    from galip_keras.presets.loading import load_model

    model = load_model("galip_small", clip)
    gan = build(model.backbone.clip, 1, 1, 0)
    checkpoint = Checkpoint(run / "checkpoints", 1, Guard(True, say))
    step = checkpoint.restore(gan)
    if not step:
        raise click.ClickException(f"there is no checkpoint in {run}")
    model = GALIPTextToImage(GALIPBackbone(gan.averaged_generator), model.preprocessor)
    model.save_to_preset(str(out))
    gan.discriminator.save_weights(out / DISCRIMINATOR)
    (out / TRAINING).write_text(json.dumps(SETTINGS, indent=2) + "\n")
    say(f"{out} is the model of step {step}")


if __name__ == "__main__":
    main()
