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

from galip_keras.models.noise import expand_seeds, noise
from galip_keras.models.prompts import clean, warn_of_lost_words

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"

# For each format: the module of its runtime, the package to install, and the suffix of
# its files.
FORMATS = {
    "saved_model": ("tensorflow", "tensorflow", ""),
    "litert": ("ai_edge_litert.interpreter", "ai-edge-litert", ".tflite"),
    "onnx": ("onnxruntime", "onnxruntime", ".onnx"),
    "openvino": ("openvino", "openvino", ".xml"),
}

_CORES = os.cpu_count() or 1


def is_exported(folder: str | Path) -> bool:
    """Whether `galip export` wrote this folder."""
    return (Path(folder) / MANIFEST).is_file()


def load(folder: str | Path) -> Exported:
    """Load an exported model.

    Args:
        folder: path.

    Returns:
        An `Exported`.

    Raises:
        ValueError: if the folder holds no export, or its runtime is not installed.
    """
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
    kind = SavedModel if manifest["format"] == "saved_model" else Parts
    return kind(folder, manifest)


class Exported(abc.ABC):
    """A text-to-image model run by another runtime than Keras.

    Attributes:
        manifest: dict. The content of the manifest file.
        latent_dim: int. Size of the noise of an image.
    """

    _encode: Callable[..., Any]

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self.latent_dim = manifest["latent_dim"]
        self._length = manifest["sequence_length"]
        self._tokenizer = _tokenizer(folder)
        self._warns = True

    def generate(
        self,
        inputs: Sequence[str],
        seed: int | Sequence[int] | None = None,
        truncation: float = 1.0,
    ) -> np.ndarray:
        """Make images.

        Args:
            inputs: list of strings. One prompt per image.
            seed: int, or a sequence of ints, one per image. Image i of a single seed
                uses `seed + i`. Drawn at random by default.
            truncation: float, at least 0. Factor of the noise.

        Returns:
            A uint8 array `(len(inputs), image_size, image_size, 3)`.
        """
        seeds = expand_seeds(seed, len(inputs))
        latents = noise(seeds, self.latent_dim, truncation)
        return self.decode(latents, self.embed(inputs))

    def embed(self, prompts: Sequence[str]) -> np.ndarray:
        """Text embeddings, a float32 array `(len(prompts), embedding_dim)`."""
        self.warn_of_lost_words(prompts)
        return np.asarray(self._encode(token_ids=self._tokenize(prompts)))

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
    def decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
        """Make images from noise and text embeddings.

        Args:
            noise: float array `(batch_size, latent_dim)`.
            text_embeddings: float array `(batch_size, embedding_dim)`.

        Returns:
            A uint8 array `(batch_size, image_size, image_size, 3)`.
        """


class Parts(Exported):
    """A text encoder and a generator, one file each."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        super().__init__(folder, manifest)
        ending = FORMATS[manifest["format"]][2]
        run = {"litert": _litert, "onnx": _onnx, "openvino": _openvino}
        self._encode, self._generate = (
            run[manifest["format"]](str(folder / f"{part}{ending}"))
            for part in ("text_encoder", "generator")
        )

    def decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
        images = self._generate(noise=noise, text_embedding=text_embeddings)
        # The same rounding as in `GALIPTextToImage.generate`.
        images = np.clip((np.asarray(images) + 1) / 2, 0, 1)
        return np.round(images * 255).astype("uint8")


class SavedModel(Exported):
    """A SavedModel, whose graph also contains the tokenizer and the noise."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        super().__init__(folder, manifest)
        import tensorflow as tf
        import tensorflow_text  # noqa: F401, registers ops

        self._model = tf.saved_model.load(str(folder))
        self._encode = self._model.encode
        self._sizes: set[int] = set()

    def decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
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


def _litert(path: str) -> Callable[..., Any]:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(path, num_threads=_CORES).get_signature_runner()

    def call(**inputs):
        (output,) = run(**inputs).values()
        return output

    return call


def _onnx(path: str) -> Callable[..., Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)[0]


def _openvino(path: str) -> Callable[..., Any]:
    import openvino

    # On newer CPUs OpenVINO would default to bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(path, "CPU", options)
    return lambda **inputs: model(inputs)[0]


def compare(folder: str, expected: str) -> None:
    """Compare an export with the images and embeddings in a file, and print JSON."""
    start = time.perf_counter()
    model = load(folder)
    loaded = time.perf_counter() - start
    with np.load(expected, allow_pickle=False) as file:
        prompts, seeds = file["prompts"].tolist(), file["seeds"].tolist()
        embeddings, images = file["embeddings"], file["images"].astype("float64")
    # Twice, since a SavedModel compiles when a batch size comes again.
    runs = [model.generate(prompts, seeds) for _ in range(2)]
    if isinstance(model, SavedModel):
        runs.append(model.serve(clean(prompts), seeds))
    ours = np.array(runs, "float64")
    error = np.mean((ours - images) ** 2)
    result = {
        "embedding_difference": float(np.abs(model.embed(prompts) - embeddings).max()),
        "pixel_difference": float(np.abs(ours - images).max()),
        # It would be infinite for identical images.
        "psnr": float(10 * np.log10(255**2 / max(error, 1e-6))),
        "seconds_to_load": round(loaded, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    compare(*sys.argv[1:])
