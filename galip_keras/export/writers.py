"""Models for production: SavedModel, LiteRT, ONNX and OpenVINO."""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from galip_keras import __version__, backend
from galip_keras.export.runtimes import FORMATS, MANIFEST, TOKENIZER
from galip_keras.files import write_folder

QUANTIZATIONS = ("float16", "int8")

# What is compared after writing.
_PROMPTS = (
    "a red bird",
    "a small blue bird with yellow wings, flying in the sky",
    "an owl's nest, 12 caf\u00e9s",
    "A castle by the sea &amp; a boat!",
    "a bowl of fruit on a wooden table",
    "two dogs",
    "",
    "a very long sentence " * 20,
)

# In float32: what embeddings may differ by, and pixels after rounding, in grey levels.
_EMBEDDING_DIFFERENCE = 1e-3
_PIXEL_DIFFERENCE = 1
# Quantized: the least ratio of signal to noise, in decibels.
_PSNR = {"float16": 40.0, "int8": 25.0}


def export(model, out, file_format, quantize=None, name="model"):
    """Writes a model for production, and compares what was written with it.

    Everything is loaded again by its own runtime in a new process. Where it differs
    from the model by more than it may, nothing is left behind.

    Args:
        model: a `galip_keras.GALIPTextToImage` with a preprocessor.
        out: path. The folder to write; it must not exist yet.
        file_format: string. A key of `exported.FORMATS`.
        quantize: string. `"float16"` or `"int8"` weights, for LiteRT.
        name: string. What the manifest calls the model.

    Returns:
        The manifest, a dict of plain values.

    Raises:
        ValueError: where that cannot be written here, or came out another model.
        FileExistsError: where `out` exists.
    """
    out = Path(out)
    _check(model, out, file_format, quantize)
    generator = model.backbone.generator
    manifest = {
        "model": name,
        "version": __version__,
        "format": file_format,
        "quantization": quantize,
        "image_size": generator.image_size,
        "latent_dim": generator.latent_dim,
        "embedding_dim": generator.clip.embedding_dim,
        "sequence_length": model.preprocessor.sequence_length,
        "vocabulary_size": model.preprocessor.tokenizer.vocabulary_size(),
    }
    with write_folder(out) as folder:
        if file_format == "saved_model":
            _write_saved_model(model, folder)
        else:
            _write_parts(model, folder, file_format, quantize)
        _write_tokenizer(model.preprocessor.tokenizer, folder / TOKENIZER)
        manifest["files"] = _files(folder)
        path = folder / MANIFEST
        path.write_text(json.dumps(manifest, indent=2))
        manifest["check"] = _compare(model, folder, quantize)
        path.write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _check(model, out, file_format, quantize):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "models are exported with TensorFlow: KERAS_BACKEND=tensorflow"
        )
    if file_format not in FORMATS:
        raise ValueError(f"unknown format {file_format!r}: give {', '.join(FORMATS)}")
    if quantize and file_format != "litert":
        raise ValueError("only litert is quantized: leave it out, or take litert")
    if quantize and quantize not in QUANTIZATIONS:
        raise ValueError(f"quantize must be one of {', '.join(QUANTIZATIONS)}")
    if model.preprocessor is None:
        raise ValueError("the model has no tokenizer: prompts are no use")
    if out.exists():
        raise FileExistsError(f"{out} exists already: choose another `out`")


def _write_saved_model(model, folder):
    backbone, preprocessor = model.backbone, model.preprocessor
    latent_dim = backbone.generator.latent_dim

    prompts = tf.TensorSpec((None,), tf.string, "prompt")
    seeds = tf.TensorSpec((None,), tf.int64, "seed")
    token_ids = tf.TensorSpec(
        (None, preprocessor.sequence_length), tf.int32, "token_ids"
    )
    latents = tf.TensorSpec((None, latent_dim), tf.float32, "noise")
    texts = tf.TensorSpec(
        (None, backbone.clip.embedding_dim), tf.float32, "text_embedding"
    )

    def draw(noise, text_embedding):
        images = backbone.generator(noise, text_embedding)
        images = tf.clip_by_value((images + 1) / 2, 0, 1)
        return tf.cast(tf.round(images * 255), "uint8")

    decode = tf.function(draw, [latents, texts])

    @tf.function(input_signature=[token_ids])
    def encode(token_ids):
        # No token looks at those behind it, and the embedding is read at the end token,
        # which has the largest id: the padding is work for nothing.
        length = tf.reduce_max(tf.argmax(token_ids, axis=1)) + 1
        return backbone.clip.embed_text(token_ids[:, :length])

    @tf.function(input_signature=[token_ids, latents])
    def generate(token_ids, noise):
        return {"images": decode(noise, encode(token_ids))}

    @tf.function(input_signature=[prompts])
    def embed(prompt):
        return {"embedding": encode(preprocessor(prompt))}

    def draw_noise(seed):
        # `galip_keras.noise` as a graph.
        pair = tf.stack([seed, tf.zeros_like(seed)])
        return tf.random.stateless_normal([latent_dim], seed=pair, alg="philox")

    @tf.function(input_signature=[prompts, seeds])
    def serve(prompt, seed):
        latents = tf.map_fn(draw_noise, seed, fn_output_signature=tf.float32)
        latents = tf.ensure_shape(latents, (None, latent_dim))
        images = decode(latents, encode(preprocessor(prompt)))
        png = tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)
        return {"image_bytes": png}

    # What TensorFlow is to find: weights, and the tables of the vocabulary. Of a Keras
    # layer, as of keras.export.ExportArchive, it would store every weight twice, as
    # Keras' variable and as its own.
    found = tf.Module()
    found.weights = [variable.value for variable in backbone.variables]
    found.tokenizer = preprocessor.tokenizer
    # Besides, for whoever loads it in Python: the two halves, and the second compiled
    # by XLA, which TensorFlow Serving may not have.
    found.encode, found.decode = encode, decode
    if backend.should_jit(backbone.generator):
        found.decode_compiled = tf.function(draw, [latents, texts], jit_compile=True)
    signatures = {"serving_default": serve, "generate": generate, "embed": embed}
    tf.saved_model.save(found, str(folder), signatures)


def _write_parts(model, folder, file_format, quantize):
    ending = FORMATS[file_format][2]
    options = {}
    if quantize:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    for part in _parts(model):
        path = str(folder / f"{part.name}{ending}")
        part.export(path, format=file_format, verbose=False, **options)


def _parts(model):
    """Text encoder and generator, as models of their own on the same weights."""
    generator = model.backbone.generator
    token_ids = keras.Input(
        (model.preprocessor.sequence_length,), dtype="int32", name="token_ids"
    )
    latents = keras.Input((generator.latent_dim,), name="noise")
    text = keras.Input((generator.clip.embedding_dim,), name="text_embedding")
    parts = (
        keras.Model(
            token_ids, generator.clip.embed_text(token_ids), name="text_encoder"
        ),
        keras.Model([latents, text], generator(latents, text), name="generator"),
    )
    for part in parts:
        # Keras exports what was called.
        part(
            keras.tree.map_structure(
                lambda x: np.zeros((1, *x.shape[1:]), x.dtype), part.input
            )
        )
    return parts


def _write_tokenizer(tokenizer, path):
    tokenizer("to be built")
    # keras-hub keeps it to itself; its own files would have to be put together again.
    tokenizer._tokenizer.save(str(path))


def _files(folder):
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _compare(model, folder, quantize):
    """Runs what was written, in a new process, beside the model."""
    prompts, seeds = list(_PROMPTS), list(range(len(_PROMPTS)))
    with tempfile.TemporaryDirectory() as temporary:
        path = str(Path(temporary, "expected.npz"))
        np.savez(
            path,
            prompts=np.array(prompts),
            seeds=np.array(seeds),
            embeddings=model.embed(prompts),
            images=model.generate(prompts, seed=seeds),
        )
        command = [
            sys.executable,
            "-m",
            "galip_keras.export.runtimes",
            str(folder),
            path,
        ]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        words = (result.stderr.strip().splitlines() or ["it crashed"])[-1]
        raise ValueError(f"what was written does not run: {words}")
    found = json.loads(result.stdout.splitlines()[-1])
    if quantize:
        is_same = found["psnr"] >= _PSNR[quantize]
    else:
        is_same = (
            found["embedding_difference"] <= _EMBEDDING_DIFFERENCE
            and found["pixel_difference"] <= _PIXEL_DIFFERENCE
        )
    if not is_same:
        raise ValueError(
            "what was written is another model: embeddings differ by "
            f"{found['embedding_difference']:.2g}, pixels by "
            f"{found['pixel_difference']:.0f} grey levels, {found['psnr']:.1f} dB"
        )
    return found
