"""CLIPs of random weights, and their tokenizers."""

import dataclasses
from collections.abc import Sequence

import keras
import keras_hub
import numpy as np
import tokenizers

from galip_keras.models.tokenizer import CLIPTokenizer


@dataclasses.dataclass(frozen=True)
class CLIPSizes:
    """The sizes of a CLIP. The defaults are those of ViT-B/32.

    Args:
        image_size: int. Height and width of the images, in pixels.
        patch_size: int. Height and width of a patch, in pixels.
        hidden_dim: int. Channels of the vision transformer.
        num_layers: int. Blocks of the vision transformer.
        num_heads: int. Attention heads of the vision transformer.
        embedding_dim: int. Size of the joint embedding.
        text_hidden_dim: int. Channels of the text transformer.
        text_num_layers: int. Blocks of the text transformer.
        text_num_heads: int. Attention heads of the text transformer.
    """

    image_size: int = 224
    patch_size: int = 32
    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    embedding_dim: int = 512
    text_hidden_dim: int = 512
    text_num_layers: int = 12
    text_num_heads: int = 8


def random_clip(
    seed: int = 0, dtype: str | keras.DTypePolicy | None = None, **sizes: int
) -> tuple[keras_hub.models.CLIPBackbone, CLIPTokenizer]:
    """Build a CLIP of random weights, for smoke tests.

    A seed gives the same weights on every backend. The tokenizer's vocabulary is the
    single bytes.

    Args:
        seed: int. Seed of the weights.
        dtype: string or `keras.DTypePolicy`.
        **sizes: the fields of `CLIPSizes`.

    Returns:
        A tuple of `keras_hub.models.CLIPBackbone` and `keras_hub.models.CLIPTokenizer`.
    """
    tokenizer = byte_tokenizer()
    size = CLIPSizes(**sizes)
    vision_encoder = keras_hub.models.CLIPVisionEncoder(
        patch_size=size.patch_size,
        hidden_dim=size.hidden_dim,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        intermediate_dim=4 * size.hidden_dim,
        image_shape=(size.image_size, size.image_size, 3),
        data_format="channels_last",
        dtype=dtype,
        name="vision_encoder",
    )
    text_encoder = keras_hub.models.CLIPTextEncoder(
        vocabulary_size=tokenizer.vocabulary_size(),
        embedding_dim=size.text_hidden_dim,
        hidden_dim=size.text_hidden_dim,
        num_layers=size.text_num_layers,
        num_heads=size.text_num_heads,
        intermediate_dim=4 * size.text_hidden_dim,
        dtype=dtype,
        name="text_encoder",
    )
    backbone = keras_hub.models.CLIPBackbone(
        vision_encoder, text_encoder, size.embedding_dim, dtype=dtype
    )
    _randomize(backbone, np.random.default_rng(seed))
    return backbone, tokenizer


def _randomize(model, rng):
    """Draw kernels with unit gain and embeddings of unit variance, in place."""
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            heads_last = weight.path.split("/")[-2] in ("query", "key", "value")
            inputs = weight.shape[:1] if heads_last else weight.shape[:-1]
            scale = np.prod(inputs) ** -0.5
        elif weight.path.endswith(("embeddings", "class_embedding")):
            scale = 1.0
        else:
            continue
        weight.assign(scale * rng.standard_normal(weight.shape, dtype="float32"))


def byte_tokenizer() -> CLIPTokenizer:
    """A `keras_hub.models.CLIPTokenizer` whose vocabulary is the single bytes."""
    # keras-hub's tokenizer needs a merge: the most common pair of English.
    return byte_pair_tokenizer(["t h"])


def byte_pair_tokenizer(merges: Sequence[str]) -> CLIPTokenizer:
    """A `keras_hub.models.CLIPTokenizer` of byte-pair merges, ids in OpenAI's order."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(a + "</w>" for a in alphabet)]
    words += [merge.replace(" ", "") for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocabulary={word: i for i, word in enumerate(words)}, merges=merges
    )
