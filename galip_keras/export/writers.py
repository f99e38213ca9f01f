"""Exports of a model: SavedModel, LiteRT, ONNX and OpenVINO."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from galip_keras import __version__, backend
from galip_keras.export.runtimes import FORMATS, TOKENIZER
from galip_keras.files import MANIFEST, sha256, write_folder
from galip_keras.models.fidelity import PROMPTS
from galip_keras.models.precision import computing_in
from galip_keras.models.text_encoder import text_encoder

QUANTIZATIONS = ("float16", "int8")

# Tolerances in float32: for embeddings, and for rounded pixels in grey levels.
_EMBEDDING_DIFFERENCE = 1e-3
_PIXEL_DIFFERENCE = 1
# Quantized: the lowest peak signal-to-noise ratio that is accepted, in decibels.
_PSNR = {"float16": 40.0, "int8": 25.0}


def export(
    model: Any,
    out: str | Path,
    file_format: str,
    quantize: str | None = None,
    name: str = "model",
) -> dict[str, Any]:
    """Export a model and check the result against it.

    A new process loads the export with its own runtime. If the results differ by more
    than the tolerance, the export is removed.

    Args:
        model: a `galip_keras.GALIPTextToImage` with a preprocessor.
        out: path. The folder to write. It must not exist yet.
        file_format: string. A key of `galip_keras.export.runtimes.FORMATS`.
        quantize: string. `"float16"` or `"int8"` weights, for LiteRT only.
        name: string. The name of the model in the manifest.

    Returns:
        The manifest, a dict of plain values.

    Raises:
        ValueError: if the model cannot be exported this way, or the export does not
            match it.
        FileExistsError: if `out` exists.
    """
    out = Path(out)
    _check(model, out, file_format, quantize)
    manifest = {
        "model": name,
        "version": __version__,
        "format": file_format,
        "quantization": quantize,
        **model.sizes,
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


def _check(model: Any, out: Path, file_format: str, quantize: str | None) -> None:
    if not backend.can_export():
        raise ValueError(
            "exporting needs the TensorFlow backend: set KERAS_BACKEND=tensorflow"
        )
    if file_format not in FORMATS:
        raise ValueError(
            f"unknown `file_format` {file_format!r}: choose one of {', '.join(FORMATS)}"
        )
    if quantize and file_format != "litert":
        raise ValueError(
            "only litert can be quantized: leave `quantize` out or choose litert"
        )
    if quantize and quantize not in QUANTIZATIONS:
        raise ValueError(f"`quantize` must be one of {', '.join(QUANTIZATIONS)}")
    if model.preprocessor is None:
        raise ValueError("the model has no tokenizer: export one that takes prompts")
    if out.exists():
        raise FileExistsError(f"{out} exists already: choose another `out`")


def _write_saved_model(model: Any, folder: Path) -> None:
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

    def draw_bfloat16(noise, text_embedding):
        with computing_in(backbone.generator, "mixed_bfloat16"):
            return draw(noise, text_embedding)

    decode = tf.function(draw, [latents, texts])

    @tf.function(input_signature=[token_ids])
    def encode(token_ids):
        # Tokens do not attend to later ones, and the embedding is read at the end
        # token, which has the largest id. So the padding can be cut off.
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

    # TensorFlow must track the weights and the tables of the vocabulary. Tracking the
    # Keras layers, as keras.export.ExportArchive does, would store every weight twice.
    root = tf.Module()
    root.weights = [variable.value for variable in backbone.variables]
    root.tokenizer = preprocessor.tokenizer
    # For use from Python: both halves, and the second one in bfloat16, and compiled by
    # XLA, which TensorFlow Serving may lack.
    root.encode, root.decode = encode, decode
    root.decode_bfloat16 = tf.function(draw_bfloat16, [latents, texts])
    if backend.should_jit(backbone.generator):

        def draw_compiled(noise, text_embedding):
            with backend.compiled(True):
                return draw(noise, text_embedding)

        root.decode_compiled = tf.function(
            draw_compiled, [latents, texts], jit_compile=True
        )
    signatures = {"serving_default": serve, "generate": generate, "embed": embed}
    tf.saved_model.save(root, str(folder), signatures)


def _write_parts(
    model: Any, folder: Path, file_format: str, quantize: str | None
) -> None:
    ending = FORMATS[file_format][2]
    options: dict[str, Any] = {}
    if quantize:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    # The runtimes compile, too.
    with backend.compiled(True):
        for part in _parts(model):
            path = str(folder / f"{part.name}{ending}")
            part.export(path, format=file_format, verbose=False, **options)


def _parts(model: Any) -> tuple[keras.Model, keras.Model]:
    """The text encoder and the generator as separate models that share the weights."""
    generator = model.backbone.generator
    latents = keras.Input((generator.latent_dim,), name="noise")
    text = keras.Input((generator.clip.embedding_dim,), name="text_embedding")
    parts = (
        text_encoder(generator.clip, model.preprocessor.sequence_length),
        keras.Model([latents, text], generator(latents, text), name="generator"),
    )
    for part in parts:
        # Keras only exports a model that has been called.
        part(
            keras.tree.map_structure(
                lambda x: np.zeros((1, *x.shape[1:]), x.dtype), part.input
            )
        )
    return parts


def _write_tokenizer(tokenizer: Any, path: Path) -> None:
    # The first call builds it.
    tokenizer("to be built")
    # keras-hub has no public access to the tokenizer as one file.
    tokenizer._tokenizer.save(str(path))


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def _no_warnings(preprocessor: Any) -> Iterator[None]:
    """Do not warn of words that are lost: one of `PROMPTS` is too long on purpose."""
    warns, preprocessor.warns = preprocessor.warns, False
    try:
        yield
    finally:
        preprocessor.warns = warns


def _compare(model: Any, folder: Path, quantize: str | None) -> dict[str, float]:
    """Run the export in a new process and compare its results with the model's."""
    prompts, seeds = list(PROMPTS), list(range(len(PROMPTS)))
    with tempfile.TemporaryDirectory() as temporary:
        path = str(Path(temporary, "expected.npz"))
        with _no_warnings(model.preprocessor):
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
        raise ValueError(f"the export does not run: {words}")
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
            "the export does not match the model: embeddings differ by "
            f"{found['embedding_difference']:.2g}, pixels by "
            f"{found['pixel_difference']:.0f} grey levels, {found['psnr']:.1f} dB"
        )
    return found
