"""Runs what `galip export` wrote, with its own runtime and without Keras."""

from __future__ import annotations

import abc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from galip_keras import processor
from galip_keras.files import MANIFEST
from galip_keras.models.fidelity import is_faithful, psnr
from galip_keras.models.inputs import (
    checked_embeddings,
    checked_noise,
    checked_token_ids,
)
from galip_keras.models.noise import expand_seeds, noise
from galip_keras.models.prompts import as_prompts, clean, warn_of_lost_words

TOKENIZER = "tokenizer.json"

# For each format: the module of its runtime, the package to install, and the suffix of
# its files.
FORMATS = {
    "saved_model": ("tensorflow", "tensorflow", ""),
    "litert": ("ai_edge_litert.interpreter", "ai-edge-litert", ".tflite"),
    "onnx": ("onnxruntime", "onnxruntime", ".onnx"),
    "openvino": ("openvino", "openvino", ".xml"),
}

# The formats that compute in bfloat16, too.
BFLOAT16 = ("saved_model", "openvino")

_SIZES = (
    "image_size", "latent_dim", "embedding_dim", "sequence_length", "vocabulary_size",
)  # fmt: skip

_CORES = os.cpu_count() or 1


def load(folder: str | Path, precision: str = "float32") -> Exported:
    """Load an exported model.

    Args:
        folder: path.
        precision: string. `"float32"`, or what OpenVINO and a SavedModel can also
            compute in: `"bfloat16"`. `"auto"` takes it where the processor has units
            for it and images stay close to those in float32.

    Returns:
        An `Exported`.

    Raises:
        ValueError: if the folder holds no export, its runtime is not installed, or it
            cannot compute in this precision.
    """
    if precision != "auto":
        return _load(folder, precision)
    exact = _load(folder, "float32")
    if not (processor.has_bfloat16() and exact.manifest["format"] in BFLOAT16):
        return exact
    fast = _load(folder, "bfloat16")
    return fast if is_faithful(fast, exact) else exact


def _load(folder: str | Path, precision: str) -> Exported:
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        module, package, _ = FORMATS[manifest["format"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no exported model") from error
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{folder} needs {package}: pip install {package}") from error
    known = ["float32"] + ["bfloat16"] * (manifest["format"] in BFLOAT16)
    if precision not in known:
        raise ValueError(
            f"{folder} computes in {' or '.join(known)}, not in {precision}"
        )
    kind = SavedModel if manifest["format"] == "saved_model" else Parts
    return kind(folder, manifest, precision)


class Exported(abc.ABC):
    """A text-to-image model run by another runtime than Keras.

    Attributes:
        manifest: dict. The content of the manifest file.
        latent_dim: int. Size of the noise of an image.
        sizes: dict of ints. The same as `galip_keras.GALIPTextToImage.sizes`.
        precision: string. What it computes in.
    """

    _encode: Callable[..., Any]

    def __init__(
        self, manifest: dict[str, Any], tokenizer: Any, precision: str = "float32"
    ) -> None:
        self.manifest = manifest
        self.precision = precision
        self.latent_dim = manifest["latent_dim"]
        self.sizes = {name: manifest[name] for name in _SIZES}
        self._length = manifest["sequence_length"]
        self._tokenizer = tokenizer
        self._warns = True

    def generate(
        self,
        inputs: str | Sequence[str],
        seed: int | Sequence[int] | None = None,
        truncation: float = 1.0,
    ) -> np.ndarray:
        """Make images.

        Args:
            inputs: a string, or a list of strings. One prompt per image.
            seed: int, or a sequence of ints, one per image. Image i of a single seed
                uses `seed + i`. Drawn at random by default.
            truncation: float, at least 0. Factor of the noise.

        Returns:
            A uint8 array `(len(inputs), image_size, image_size, 3)`, without the first
            axis for a single string.

        Raises:
            ValueError: if there are no prompts, some are no strings, or a seed or the
                truncation is out of range.
        """
        prompts, is_scalar = as_prompts(inputs)
        seeds = expand_seeds(seed, len(prompts))
        latents = noise(seeds, self.latent_dim, truncation)
        images = self._decode(latents, self.embed(prompts))
        return images[0] if is_scalar else images

    def embed(self, prompts: str | Sequence[str]) -> np.ndarray:
        """Text embeddings, a float32 array `(batch_size, embedding_dim)`."""
        prompts, _ = as_prompts(prompts)
        self.warn_of_lost_words(prompts)
        return np.asarray(self._encode(token_ids=self._tokenize(prompts)))

    def generate_from_token_ids(
        self, token_ids: ArrayLike, noise: ArrayLike
    ) -> np.ndarray:
        """Make images from token ids and noise, as `generate` does.

        Args:
            token_ids: int array `(batch_size, length)`, of at most `sequence_length`
                tokens.
            noise: float array `(batch_size, latent_dim)`.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`.

        Raises:
            ValueError: if a shape or a dtype is another one, or a number is out of
                range.
        """
        token_ids = checked_token_ids(token_ids, self.sizes)
        latents = checked_noise(noise, self.sizes, len(token_ids))
        padding = self._length - token_ids.shape[1]
        token_ids = np.pad(token_ids, [(0, 0), (0, padding)])
        return self._decode(latents, np.asarray(self._encode(token_ids=token_ids)))

    def decode(self, noise: ArrayLike, text_embeddings: ArrayLike) -> np.ndarray:
        """Make images from noise and text embeddings.

        Args:
            noise: float array `(batch_size, latent_dim)`.
            text_embeddings: float array `(batch_size, embedding_dim)`.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`.

        Raises:
            ValueError: if a shape or a dtype is another one, or a number is not finite.
        """
        latents = checked_noise(noise, self.sizes)
        texts = checked_embeddings(text_embeddings, self.sizes, len(latents))
        return self._decode(latents, texts)

    def warn_of_lost_words(self, prompts: Sequence[str]) -> None:
        """Warn about words that are not read, unless that was done before."""
        self._warns = self._warns and not warn_of_lost_words(
            clean(list(prompts)),
            lambda words: map(len, self._tokenizer.encode_batch(words)),
            self._length,
        )

    def _tokenize(self, prompts: Sequence[str]) -> np.ndarray:
        """Token ids `(len(prompts), sequence_length)`."""
        found = self._tokenizer
        start, end = (
            found.token_to_id(f"<|{name}oftext|>") for name in ("start", "end")
        )
        ids = np.zeros((len(prompts), self._length), "int32")
        for row, encoding in zip(ids, found.encode_batch(clean(list(prompts)))):
            tokens = [start, *encoding.ids[: self._length - 2], end]
            row[: len(tokens)] = tokens
        return ids

    @abc.abstractmethod
    def _decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
        """Do what `decode` does, with arrays that were checked and are float32."""


class Parts(Exported):
    """A text encoder and a generator, one file each."""

    def __init__(self, folder: Path, manifest: dict[str, Any], precision: str) -> None:
        super().__init__(manifest, _tokenizer(folder), precision)
        ending = FORMATS[manifest["format"]][2]
        run: dict[str, Callable[[str, str], Callable[..., Any]]] = {
            "litert": _litert,
            "onnx": _onnx,
            "openvino": _openvino,
        }
        # As in Keras, the text encoder stays exact.
        self._encode, self._generate = (
            run[manifest["format"]](str(folder / f"{part}{ending}"), how)
            for part, how in (("text_encoder", "float32"), ("generator", precision))
        )

    def _decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
        images = self._generate(noise=noise, text_embedding=text_embeddings)
        # The same rounding as in `GALIPTextToImage.generate`.
        images = np.clip((np.asarray(images) + 1) / 2, 0, 1)
        return np.round(images * 255).astype("uint8")


class SavedModel(Exported):
    """A SavedModel, whose graph also contains the tokenizer and the noise."""

    def __init__(self, folder: Path, manifest: dict[str, Any], precision: str) -> None:
        super().__init__(manifest, _tokenizer(folder), precision)
        import tensorflow as tf
        import tensorflow_text  # noqa: F401, registers ops

        self._model = tf.saved_model.load(str(folder))
        if precision == "bfloat16" and not hasattr(self._model, "decode_bfloat16"):
            raise ValueError(f"{folder} has no graph in bfloat16: export it anew")
        self._encode = self._model.encode
        self._sizes: set[int] = set()

    def _decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
        if self.precision == "bfloat16":
            return self._model.decode_bfloat16(noise, text_embeddings).numpy()
        decode = self._model.decode
        # Compiling takes seconds per batch size, so wait until a size comes again.
        if len(noise) in self._sizes:
            decode = getattr(self._model, "decode_compiled", decode)
        self._sizes.add(len(noise))
        return decode(noise, text_embeddings).numpy()

    def serve(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Make images with the signature that TensorFlow Serving calls."""
        import tensorflow as tf

        files = self._model.signatures["serving_default"](
            prompt=tf.constant(prompts), seed=tf.constant(seeds, tf.int64)
        )["image_bytes"]
        return np.stack([tf.io.decode_png(file).numpy() for file in files])


def _tokenizer(folder: Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))


def _litert(path: str, precision: str) -> Callable[..., Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=_CORES)
    # LiteRT prints a note when it allocates: do it while output is held back.
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()

    def call(**inputs):
        (output,) = run(**inputs).values()
        return output

    return call


def _onnx(path: str, precision: str) -> Callable[..., Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)[0]


def _openvino(path: str, precision: str) -> Callable[..., Any]:
    import openvino

    # Without the hint OpenVINO would take bfloat16 on newer CPUs.
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(path, "CPU", options)
    return lambda **inputs: model(inputs)[0]


def compare(folder: str, expected: str) -> None:
    """Compare an export with the images and embeddings in a file, and print JSON."""
    start = time.perf_counter()
    model = load(folder)
    loaded = time.perf_counter() - start
    with np.load(expected, allow_pickle=False) as file:
        prompts, seeds = file["prompts"].tolist(), file["seeds"].tolist()
        embeddings, images = file["embeddings"], file["images"]
    # Twice, since a SavedModel compiles when a batch size comes again.
    runs = [model.generate(prompts, seeds) for _ in range(2)]
    if isinstance(model, SavedModel):
        runs.append(model.serve(clean(prompts), seeds))
    ours = np.array(runs)
    result = {
        "embedding_difference": float(np.abs(model.embed(prompts) - embeddings).max()),
        "pixel_difference": float(np.abs(ours - images.astype("float64")).max()),
        "psnr": psnr(ours, images),
        "seconds_to_load": round(loaded, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    compare(*sys.argv[1:])
