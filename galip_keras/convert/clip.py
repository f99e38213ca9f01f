"""CLIP weights and vocabulary, by OpenAI's names."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from typing import Any

import keras
import keras_hub
import numpy as np

from galip_keras.console import first_words, say
from galip_keras.convert import huggingface, known_clips
from galip_keras.convert.pytorch import read_state
from galip_keras.convert.tensors import (
    Tensors,
    assign,
    assign_dense,
    assign_norm,
    without_wrappers,
)
from galip_keras.models.clip import load_clip
from galip_keras.models.random_clip import byte_pair_tokenizer
from galip_keras.models.tokenizer import CLIPTokenizer

# The head size of every CLIP that OpenAI published. No tensor's shape tells it.
_HEAD_DIM = 64


def clip_from_state(state: Mapping[str, Any]) -> keras_hub.models.CLIPBackbone:
    """Build a CLIP from OpenAI's weights.

    Args:
        state: dict of NumPy arrays by OpenAI's names (`visual.conv1.weight`, ...).

    Returns:
        A `keras_hub.models.CLIPBackbone`.

    Raises:
        ValueError: if a tensor is missing, left over or of the wrong shape.
    """
    tensors = Tensors(dict(state))
    clip = _empty_clip(tensors)
    load_vision(clip.vision_encoder, tensors.under("visual."))
    assign_norm(clip.vision_encoder.layer_norm, tensors.under("visual.ln_post."))
    assign(clip.vision_projection.kernel, tensors.take("visual.proj"))
    text = clip.text_encoder
    assign(
        text.embedding.token_embedding.embeddings,
        tensors.take("token_embedding.weight"),
    )
    assign(
        text.embedding.position_embedding.position_embeddings,
        tensors.take("positional_embedding"),
    )
    _load_transformer(text, tensors.under("transformer."))
    assign_norm(text.layer_norm, tensors.under("ln_final."))
    assign(clip.text_projection.kernel, tensors.take("text_projection"))
    assign(clip.clip_head.logit_scale, tensors.take("logit_scale"))
    # Sizes, which OpenAI's archives store beside the weights.
    for name in ("input_resolution", "context_length", "vocab_size"):
        tensors.drop(name)
    tensors.check_empty()
    return clip


def _empty_clip(tensors: Tensors) -> keras_hub.models.CLIPBackbone:
    hidden_dim, _, patch_size, _ = tensors.shape("visual.conv1.weight")
    grid_size = round((tensors.shape("visual.positional_embedding")[0] - 1) ** 0.5)
    vocabulary_size, text_dim = tensors.shape("token_embedding.weight")
    vision_encoder = keras_hub.models.CLIPVisionEncoder(
        patch_size=patch_size,
        hidden_dim=hidden_dim,
        num_layers=tensors.count(r"visual\.transformer\.resblocks\.(\d+)\."),
        num_heads=hidden_dim // _HEAD_DIM,
        intermediate_dim=4 * hidden_dim,
        image_shape=(grid_size * patch_size, grid_size * patch_size, 3),
        data_format="channels_last",
        name="vision_encoder",
    )
    text_encoder = keras_hub.models.CLIPTextEncoder(
        vocabulary_size=vocabulary_size,
        embedding_dim=text_dim,
        hidden_dim=text_dim,
        num_layers=tensors.count(r"transformer\.resblocks\.(\d+)\."),
        num_heads=text_dim // _HEAD_DIM,
        intermediate_dim=4 * text_dim,
        max_sequence_length=tensors.shape("positional_embedding")[0],
        name="text_encoder",
    )
    return keras_hub.models.CLIPBackbone(
        vision_encoder, text_encoder, tensors.shape("text_projection")[1]
    )


def load_vision(encoder: keras.Layer, tensors: Tensors) -> None:
    """Load a vision encoder, up to its last block: no post norm, no projection.

    The generator's CLIP-ViT has these weights, too.
    """
    embedding = encoder.embedding
    kernel = tensors.take("conv1.weight").transpose(2, 3, 1, 0)
    assign(embedding.patch_embedding.kernel, kernel)
    assign(embedding.class_embedding, tensors.take("class_embedding"))
    positions = tensors.take("positional_embedding")
    assign(embedding.position_embedding.embeddings, positions)
    embedding.position_ids.assign(np.arange(len(positions))[None])
    assign_norm(encoder.pre_layer_norm, tensors.under("ln_pre."))
    _load_transformer(encoder, tensors.under("transformer."))


def _load_transformer(encoder: keras.Layer, tensors: Tensors) -> None:
    for i, block in enumerate(encoder.encoder_layers):
        source = tensors.under(f"resblocks.{i}.")
        assign_norm(block.layer_norm_1, source.under("ln_1."))
        _load_attention(block.attention, source.under("attn."))
        assign_norm(block.layer_norm_2, source.under("ln_2."))
        assign_dense(block.dense_1, source.under("mlp.c_fc."))
        assign_dense(block.dense_2, source.under("mlp.c_proj."))


def _load_attention(attention: keras.Layer, tensors: Tensors) -> None:
    kernels = np.split(tensors.take("in_proj_weight"), 3)
    biases = np.split(tensors.take("in_proj_bias"), 3)
    layers = (attention.query_dense, attention.key_dense, attention.value_dense)
    for layer, kernel, bias in zip(layers, kernels, biases):
        assign(layer.kernel, kernel.T.reshape(layer.kernel.shape))
        assign(layer.bias, bias.reshape(layer.bias.shape))
    layer = attention.output_dense
    kernel = tensors.take("out_proj.weight").T.reshape(layer.kernel.shape)
    assign(layer.kernel, kernel)
    assign(layer.bias, tensors.take("out_proj.bias"))


def read_vocabulary(path: str, vocabulary_size: int = 49408) -> CLIPTokenizer:
    """Read OpenAI's `bpe_simple_vocab_16e6.txt.gz`, or Hugging Face's vocabulary.

    Args:
        path: string. The file of byte-pair merges, or Hugging Face's `tokenizer.json`,
            or its `vocab.json` or `merges.txt` with the other one beside it.
        vocabulary_size: int. The number of tokens that the CLIP knows. The file holds
            more merges than these need.

    Returns:
        A `keras_hub.models.CLIPTokenizer`.

    Raises:
        ValueError: if the file is something else or too short.
    """
    if huggingface.is_vocabulary(path):
        return huggingface.read_vocabulary(path, vocabulary_size)
    # The other tokens are 256 bytes, the same 256 at the end of a word, and the start
    # and the end of the text.
    num_merges = vocabulary_size - 2 * 256 - 2
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            merges = file.read().split("\n")[1 : num_merges + 1]
    except (gzip.BadGzipFile, UnicodeDecodeError, EOFError) as error:
        raise ValueError(f"{path} is no gzip file of byte-pair merges.") from error
    if len(merges) < num_merges or any(m.count(" ") != 1 for m in merges):
        raise ValueError(
            f"{path} does not hold the {num_merges} byte-pair merges of this CLIP."
        )
    return byte_pair_tokenizer(merges)


def read_clip(path: str) -> dict[str, Any]:
    """Read the weights of a CLIP by OpenAI's names or Hugging Face's.

    Args:
        path: string. A file of weights.

    Returns:
        A dict of tensors by OpenAI's names, or what the file holds if it is no CLIP.

    Raises:
        ValueError: if the CLIP computes something that keras-hub's does not.
    """
    state = clip_state(read_state(path, lazy=True))
    if is_clip(state):
        huggingface.check_activation(path)
    return state


def clip_state(state: Any) -> dict[str, Any]:
    """Find the weights of a CLIP by OpenAI's names or Hugging Face's.

    Args:
        state: what `read_state` returned.

    Returns:
        A dict of tensors by OpenAI's names, or `state` itself if it is no CLIP.
    """
    if not isinstance(state, dict):
        return {}
    found = state.get("state_dict", state)
    found = without_wrappers(found) if isinstance(found, dict) else {}
    if huggingface.is_clip(found):
        return huggingface.openai_names(found)
    # open_clip's prefix for a custom text tower.
    found = {name.removeprefix("text."): value for name, value in found.items()}
    return found if is_clip(found) else state


def is_clip(state: Mapping[str, Any]) -> bool:
    """Whether a state dict holds a CLIP by OpenAI's names."""
    return "visual.conv1.weight" in state


_Loaded = tuple[keras_hub.models.CLIPBackbone, CLIPTokenizer]


def load_any_clip(
    source: str, vocabulary: str | None = None, argument: str = "clip"
) -> _Loaded:
    """Load a CLIP from a preset or from a file of weights.

    Args:
        source: string. As `galip_keras.models.clip.load_clip` takes it, a CLIP of
            OpenAI's on the Hugging Face hub (`"openai/clip-vit-base-patch32"`), or a
            file of OpenAI's, open_clip's or Hugging Face's weights, or a folder of the
            last. If keras-hub's cannot be fetched, Hugging Face's is taken.
        vocabulary: string or None. A vocabulary, for a file of weights. Defaults to
            the one beside it.
        argument: string. Who named the source, to be named in errors.

    Raises:
        OSError: if it cannot be fetched.
        ValueError: if it is no CLIP.
    """
    name = known_clips.hub_name(source)
    if name is None or os.path.exists(source):
        return _load(source, vocabulary, argument)
    failure = ""
    if not known_clips.only_from_hub(source, name):
        try:
            return load_clip(source, argument=argument)
        except ValueError as error:
            failure = f"keras-hub ({first_words(error.__cause__ or error)})"
            say(f"{source} cannot be had from {failure}: trying Hugging Face.")
    try:
        folder = known_clips.fetch_from_hub(name)
    except OSError as error:
        if not failure:
            raise
        raise OSError(
            f"{source} can be had neither from {failure} nor from Hugging Face: {error}"
        ) from error
    return _load(folder, vocabulary, argument)


def _load(source: str, vocabulary: str | None, argument: str) -> _Loaded:
    source = huggingface.weights_in(source) or source
    if not os.path.isfile(source):
        return load_clip(source, argument=argument)
    state = read_clip(source)
    if not is_clip(state):
        raise ValueError(
            f"{source} holds no weights of CLIP by OpenAI's or Hugging Face's names."
        )
    backbone = clip_from_state(state)
    vocabulary = vocabulary or huggingface.vocabulary_beside(source)
    return backbone, clip_tokenizer(backbone, vocabulary)


def clip_tokenizer(
    backbone: keras_hub.models.CLIPBackbone, vocabulary: str | None
) -> CLIPTokenizer:
    """The tokenizer of a CLIP, from OpenAI's vocabulary or keras-hub's copy of it."""
    if vocabulary is not None:
        return read_vocabulary(vocabulary, backbone.text_encoder.vocabulary_size)
    try:
        # OpenAI's CLIPs all share one vocabulary.
        return CLIPTokenizer.from_preset("clip_vit_base_patch32")
    except Exception as error:
        raise ValueError(
            "A file of CLIP weights has no vocabulary, and keras-hub's could not be "
            "downloaded. Give OpenAI's bpe_simple_vocab_16e6.txt.gz, or Hugging Face's "
            "tokenizer.json, as `vocabulary`."
        ) from error
