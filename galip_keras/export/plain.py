"""Draws a small preset by NumPy alone, before Keras would have been imported.

It is the forward pass of `galip_keras.models` written a second time, for the first
images of the model that ships. A test compares the two.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from galip_keras.export.runtimes import Exported
from galip_keras.models.prompts import WORDS, unknown_words

_CLIP = "mate_g/clip/clip/layers/clip_vision_encoder/layers"
_TEXT = "clip_text_encoder/layers"
_EPSILON = 1e-5
_SLOPE = 0.2

# How OpenAI's tokenizer takes a prompt apart.
_UNITS = rf"<\|startoftext\|>|<\|endoftext\|>|{WORDS}"


class Plain(Exported):
    """A preset of `galip_keras.GALIPTextToImage` in float32, drawn by NumPy.

    Args:
        folder: path. The preset.

    Raises:
        OSError: if it lacks a file.
        KeyError: if it is no preset of that class.
    """

    def __init__(self, folder: Path) -> None:
        generator = json.loads((folder / "config.json").read_text("utf-8"))["config"]
        generator = generator["generator"]["config"]
        clip = generator["clip"]["config"]["clip"]["config"]
        vision, text = (
            clip[f"{name}_encoder"]["config"] for name in ("vision", "text")
        )
        preprocessor = json.loads((folder / "preprocessor.json").read_text("utf-8"))
        sizes = {
            "image_size": generator["image_size"],
            "latent_dim": generator["latent_dim"],
            "embedding_dim": clip["projection_dim"],
            "sequence_length": preprocessor["config"]["sequence_length"],
            "vocabulary_size": text["vocabulary_size"],
        }
        super().__init__(sizes, _tokenizer(folder / "assets" / "tokenizer"))
        self._encode = self._embed_text
        self._grid = vision["image_shape"][0] // vision["patch_size"]
        self._heads = {_CLIP: vision["num_heads"], _TEXT: text["num_heads"]}
        self._prompt_layers = generator["prompt_layers"]
        self._bridge_scale = np.float32(generator["bridge_scale"])
        self._weights: dict[str, list[np.ndarray]] = {}
        with h5py.File(folder / "model.weights.h5") as file:
            file["layers"].visititems(self._read)

    def unknown_words(self, prompts: Sequence[str]) -> list[str]:
        """The words of prompts that the training captions never used."""
        return unknown_words(prompts, lambda word: len(self._tokenizer.encode(word)))

    def _decode(self, noise: np.ndarray, text_embeddings: np.ndarray) -> np.ndarray:
        condition = np.concatenate([noise, text_embeddings], axis=-1)
        bridge = self._bridge(noise, condition)
        visual_map = self._transform(bridge, condition)
        x = self._conv(bridge + self._bridge_scale * visual_map, "mate_g/conv")
        names = self._numbered("mate_g/generator_blocks/generator_block")
        for i, name in enumerate(names):
            is_last = i == len(names) - 1
            size = max(8 * 2**i, self._grid)
            size = self.sizes["image_size"] if is_last else size
            x = self._generator_block(x, condition, size, name)
        images = self._conv(_leaky_relu(x), "mate_g/layers/conv2d_1")
        # The same rounding as in `GALIPTextToImage.generate`.
        images = np.clip((images + 1) / 2, 0, 1)
        return np.round(images * 255).astype("uint8")

    def _read(self, name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer = name.rpartition("/vars/")[0]
            # In the order of their names, which are numbers of one digit.
            self._weights.setdefault(layer, []).append(item[()].astype("float32"))

    def _numbered(self, name: str) -> list[str]:
        """The names of layers of a kind: Keras writes `name`, `name_1`, `name_2`..."""
        names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
        return list(
            itertools.takewhile(
                lambda name: any(x.startswith(f"{name}/") for x in self._weights), names
            )
        )

    def _embed_text(self, token_ids: np.ndarray) -> np.ndarray:
        # Tokens do not attend to later ones, and the embedding is read at the end
        # token, which has the largest id.
        ends = np.argmax(token_ids, axis=1)
        token_ids = token_ids[:, : ends.max() + 1]
        name = f"{_TEXT}/token_and_position_embedding"
        (tokens,) = self._weights[f"{name}/token_embedding"]
        (positions,) = self._weights[f"{name}/position_embedding"]
        x = tokens[token_ids] + positions[: token_ids.shape[1]]
        future = np.triu(np.full([x.shape[1]] * 2, -np.inf, "float32"), 1)
        for name in self._numbered(f"{_TEXT}/clip_encoder_layer"):
            x = self._encoder_block(x, name, self._heads[_TEXT], future)
        x = self._norm(x, f"{_TEXT}/layer_normalization")
        return x[np.arange(len(x)), ends] @ self._weights["dense"][0]

    def _transform(self, bridge: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """CLIP's vision transformer on the bridge feature, with prompts."""
        shape = bridge.shape
        x = bridge.reshape(shape[0], -1, shape[-1])
        name = f"{_CLIP}/clip_vision_embedding"
        class_token = self._weights[name][0]
        (positions,) = self._weights[f"{name}/position_embedding"]
        x = np.concatenate([0 * x[:, :1] + class_token, x], axis=1) + positions
        x = self._norm(x, f"{_CLIP}/layer_normalization")
        if self._prompt_layers:
            prompts = self._dense(condition, "mate_g/layers/prompt_predictor/dense")
            prompts = prompts.reshape(shape[0], -1, shape[-1])
        for i, name in enumerate(self._numbered(f"{_CLIP}/clip_encoder_layer")):
            if i in self._prompt_layers:
                prompt = prompts[:, self._prompt_layers.index(i)][:, None]
                x = np.concatenate([x, prompt], axis=1)
                x = self._encoder_block(x, name, self._heads[_CLIP])[:, :-1]
            else:
                x = self._encoder_block(x, name, self._heads[_CLIP])
        return x[:, 1:].reshape(shape)

    def _encoder_block(
        self, x: np.ndarray, name: str, heads: int, mask: np.ndarray | float = 0.0
    ) -> np.ndarray:
        batch, length, dim = x.shape

        def project(part):
            kernel, bias = self._weights[f"{name}/attention/{part}_dense"]
            y = normed @ kernel.reshape(dim, dim) + bias.reshape(dim)
            return y.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)

        normed = self._norm(x, f"{name}/layer_norm_1")
        query, key, value = map(project, ("query", "key", "value"))
        query = query * np.float32(query.shape[-1] ** -0.5)
        scores = query @ key.swapaxes(-1, -2) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, length, dim)
        kernel, bias = self._weights[f"{name}/attention/output_dense"]
        x = x + mixed @ kernel.reshape(dim, dim) + bias
        hidden = self._dense(self._norm(x, f"{name}/layer_norm_2"), f"{name}/dense_1")
        # CLIP's quick GELU.
        hidden = hidden / (1 + np.exp(np.float32(-1.702) * hidden))
        return x + self._dense(hidden, f"{name}/dense_2")

    def _bridge(self, noise: np.ndarray, condition: np.ndarray) -> np.ndarray:
        x = self._dense(noise, "mate_g/bridge_predictor/code")
        x = x.reshape(len(x), self._grid, self._grid, -1)
        blocks = "mate_g/bridge_predictor/fusion_blocks/fusion_block"
        for name in self._numbered(blocks):
            residual = self._conv(x, f"{name}/conv_1")
            residual = self._fuse(residual, condition, f"{name}/fusion_1")
            residual = self._conv(residual, f"{name}/conv_2")
            x = x + self._fuse(residual, condition, f"{name}/fusion_2")
        return self._conv(x, "mate_g/bridge_predictor/conv")

    def _generator_block(
        self, x: np.ndarray, condition: np.ndarray, size: int, name: str
    ) -> np.ndarray:
        residual = _resize(self._fuse(x, condition, f"{name}/fusion_1"), size)
        residual = self._conv(residual, f"{name}/conv_1")
        residual = self._fuse(residual, condition, f"{name}/fusion_2")
        residual = self._conv(residual, f"{name}/conv_2")
        if f"{name}/shortcut" in self._weights:
            x = self._conv(x, f"{name}/shortcut")
        return _resize(x, size) + residual

    def _fuse(self, x: np.ndarray, condition: np.ndarray, name: str) -> np.ndarray:
        """Deep fusion: affine, LeakyReLU, affine, LeakyReLU."""
        hidden_kernel, hidden_bias, kernel, bias = self._weights[name]
        hidden = np.maximum(condition @ hidden_kernel + hidden_bias, 0)
        hidden = hidden.reshape(len(hidden), len(bias), -1)
        affines = np.einsum("bkc,kcd->kbd", hidden, kernel) + bias[:, None]
        scale_1, shift_1, scale_2, shift_2 = affines[:, :, None, None]
        return _leaky_relu(_leaky_relu(x * scale_1 + shift_1) * scale_2 + shift_2)

    def _conv(self, x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = self._weights[name]
        size, height, width = kernel.shape[0], *x.shape[1:3]
        x = np.pad(x, [(0, 0), *[(size // 2, size // 2)] * 2, (0, 0)])
        patches = [
            x[:, i : i + height, j : j + width]
            for i in range(size)
            for j in range(size)
        ]
        return np.concatenate(patches, -1) @ kernel.reshape(-1, len(bias)) + bias

    def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = self._weights[name]
        return x @ kernel + bias

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale, shift = self._weights[name]
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(_EPSILON))
        return x * scale + shift


def _leaky_relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, np.float32(_SLOPE) * x)


def _resize(x: np.ndarray, size: int) -> np.ndarray:
    """Nearest neighbour, as `galip_keras.models.convolutions.nearest_resize`."""
    index = np.arange(size) * x.shape[1] // size
    return x[:, index][:, :, index]


def _tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer that keras-hub makes of the same files."""
    vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    lines = (folder / "merges.txt").read_text("utf-8").splitlines()
    merges = [line.partition(" ") for line in lines]
    found = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[(first, second) for first, _, second in merges],
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )
    found.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    found.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_UNITS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return found
