"""The frozen CLIP inside GALIP: a keras-hub `CLIPBackbone`.

No other module here uses the inner layers of keras-hub's CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
from keras import ops

from galip_keras.backend import Tensor
from galip_keras.console import first_words
from galip_keras.models.convolutions import nearest_resize
from galip_keras.models.tokenizer import CLIPTokenizer

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

# Scale and offset of pixels in [-1, 1] before CLIP's mean and deviation. "reference" is
# the authors' choice, on which their weights depend.
_PIXEL_SCALING = {"reference": (0.25, 0.75), "standard": (0.5, 0.5)}


@keras.saving.register_keras_serializable(package="galip_keras")
class FrozenCLIP(keras.layers.Layer):
    """A frozen CLIP with tapped image features, embeddings, and its ViT on a bridge.

    Args:
        clip: a `keras_hub.models.CLIPBackbone`. It is frozen in place.
        feature_layers: tuple of ints. Transformer blocks of the vision encoder, counted
            from 0, whose outputs are the image features. -1 stands for the patch
            embeddings before the first block, which hold all that is in the pixels.
        pixel_scaling: `"reference"` or `"standard"`. How pixels in [-1, 1] are mapped
            before CLIP's own normalization: to `0.25 x + 0.75`, as in the authors'
            code, or to `0.5 x + 0.5`.
        dtype: string or `keras.DTypePolicy`. Defaults to that of `clip`.
        name: string.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if a feature layer does not exist, the scaling is unknown, or the
            images are not channels last.

    Example:

    ```python
    # Or keras_hub.models.CLIPBackbone.from_preset("clip_vit_base_patch32").
    random_clip = galip_keras.models.random_clip.random_clip
    backbone, _ = random_clip(image_size=64, hidden_dim=96)
    clip = galip_keras.FrozenCLIP(backbone)
    clip.extract_features(np.zeros((2, 64, 64, 3), "float32"))  # (2, 3, 2, 2, 96)
    clip.embed_text(np.ones((2, 77), "int32"))  # (2, 512)
    ```

    Reference:
        [Learning Transferable Visual Models From Natural Language Supervision](
        https://arxiv.org/abs/2103.00020)
    """

    def __init__(
        self,
        clip: keras_hub.models.CLIPBackbone,
        feature_layers: Sequence[int] = (1, 4, 8),
        pixel_scaling: str = "reference",
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "clip",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=dtype or clip.dtype_policy, name=name, **kwargs)
        encoder = clip.vision_encoder
        if pixel_scaling not in _PIXEL_SCALING:
            raise ValueError(
                f"`pixel_scaling` must be one of {sorted(_PIXEL_SCALING)}. "
                f"Received: pixel_scaling={pixel_scaling!r}"
            )
        check_blocks("feature_layers", feature_layers, encoder.num_layers, first=-1)
        if encoder.embedding.data_format != "channels_last":
            raise ValueError("GALIP needs a CLIP whose images are channels last.")

        # === Layers ===
        self.clip = clip
        # keras-hub creates the position ids as zeros and expects them to be loaded with
        # the weights: without this, a randomly initialized CLIP sees no positions.
        positions = encoder.embedding.position_ids
        positions.assign(ops.arange(positions.shape[1], dtype=positions.dtype)[None])
        # Use OpenAI's epsilon in place of keras-hub's 1e-6. The kinks of the generator
        # would amplify the difference in its gradients.
        clip.text_encoder.layer_norm.epsilon = 1e-5
        self.trainable = False
        self.built = True

        # === Config ===
        self.feature_layers = tuple(feature_layers)
        self.pixel_scaling = pixel_scaling

    @property
    def image_size(self) -> int:
        """Height and width of CLIP's own input images, in pixels."""
        return self.clip.vision_encoder.image_shape[0]

    @property
    def grid_size(self) -> int:
        """Height and width of the feature maps, in patches."""
        return self.image_size // self.clip.vision_encoder.patch_size

    @property
    def hidden_dim(self) -> int:
        """Channels of the feature maps."""
        return self.clip.vision_encoder.hidden_dim

    @property
    def num_layers(self) -> int:
        """Number of transformer blocks of the vision encoder."""
        return self.clip.vision_encoder.num_layers

    @property
    def embedding_dim(self) -> int:
        """Size of the joint embedding of images and texts."""
        return self.clip.projection_dim

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, from 0."""
        return self.clip.text_encoder.vocabulary_size

    @property
    def sequence_length(self) -> int:
        """The most tokens of a text."""
        return self.clip.text_encoder.max_sequence_length

    @property
    def text_variables(self) -> list[keras.Variable]:
        """The variables that text embeddings depend on."""
        return [*self.clip.text_encoder.variables, *self.clip.text_projection.variables]

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """Embed texts: projected, but not normalized.

        Args:
            token_ids: int tensor `(batch_size, sequence_length)`.

        Returns:
            A float32 tensor `(batch_size, embedding_dim)`.
        """
        return ops.cast(self.clip.get_text_embeddings(token_ids), "float32")

    def extract_features(self, images: Tensor) -> Tensor:
        """Extract the tapped feature maps of images, without their class tokens.

        Args:
            images: tensor `(batch_size, height, height, 3)` in [-1, 1], of any size.

        Returns:
            A tensor `(batch_size, len(feature_layers), grid_size, grid_size,
            hidden_dim)`.
        """
        # No output depends on the blocks after the last tap.
        features, _ = self._encode(images, num_layers=max(self.feature_layers) + 1)
        return features

    def extract_features_and_embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Extract the tapped feature maps of images and embed the images.

        Args:
            images: tensor `(batch_size, height, height, 3)` in [-1, 1], of any size.

        Returns:
            A tuple of the features, as `extract_features` returns them, and the
            layer-normalized and projected class tokens, a float32 tensor
            `(batch_size, embedding_dim)`.
        """
        features, x = self._encode(images, num_layers=self.num_layers)
        class_token = self.clip.vision_encoder.layer_norm(x[:, :1])[:, 0]
        embeddings = self.clip.vision_projection(class_token)
        return features, ops.cast(embeddings, "float32")

    def transform_bridge(
        self, bridge: Tensor, prompts: Tensor, prompt_layers: Sequence[int]
    ) -> Tensor:
        """Run the vision transformer on a bridge feature in place of image patches.

        Args:
            bridge: tensor `(batch_size, grid_size, grid_size, hidden_dim)`. Takes the
                place of the patch embeddings.
            prompts: tensor `(batch_size, len(prompt_layers), hidden_dim)`. Prompt i is
                one more token, without a position, in block `prompt_layers[i]` alone.
                None if `prompt_layers` is empty.
            prompt_layers: sequence of ints. Blocks counted from 0.

        Returns:
            The visual map, a tensor of the shape of `bridge`, without post layer norm.
        """
        encoder = self.clip.vision_encoder
        x = encoder.pre_layer_norm(self._embed_bridge(bridge))
        for i, block in enumerate(encoder.encoder_layers):
            if i in prompt_layers:
                prompt = prompts[:, prompt_layers.index(i)][:, None]
                prompt = ops.cast(prompt, x.dtype)
                x = block(ops.concatenate([x, prompt], axis=1))[:, :-1]
            else:
                x = block(x)
        return self._to_map(x)

    def _embed_bridge(self, bridge):
        """The class token and the bridge as tokens, with their positions."""
        embedding = self.clip.vision_encoder.embedding
        bridge = ops.cast(bridge, self.compute_dtype)
        x = ops.reshape(bridge, (-1, self.grid_size**2, self.hidden_dim))
        class_token = ops.cast(embedding.class_embedding, x.dtype)
        class_token = ops.zeros_like(x[:, :1]) + class_token
        x = ops.concatenate([class_token, x], axis=1)
        return x + embedding.position_embedding(embedding.position_ids)

    def _encode(self, images, num_layers):
        encoder = self.clip.vision_encoder
        x = encoder.embedding(self._normalize(images))
        taps = [self._to_map(x)] if -1 in self.feature_layers else []
        x = encoder.pre_layer_norm(x)
        for i, block in enumerate(encoder.encoder_layers[:num_layers]):
            x = block(x)
            if i in self.feature_layers:
                taps.append(self._to_map(x))
        return ops.stack(taps, axis=1), x

    def _normalize(self, images):
        scale, offset = _PIXEL_SCALING[self.pixel_scaling]
        images = nearest_resize(images, self.image_size)
        images = ops.cast(images, "float32") * scale + offset
        mean, std = ops.convert_to_tensor(_MEAN), ops.convert_to_tensor(_STD)
        return ops.cast((images - mean) / std, self.compute_dtype)

    def _to_map(self, tokens):
        shape = (-1, self.grid_size, self.grid_size, self.hidden_dim)
        return ops.reshape(tokens[:, 1:], shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "clip": keras.layers.serialize(self.clip),
                "feature_layers": self.feature_layers,
                "pixel_scaling": self.pixel_scaling,
            }
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FrozenCLIP:
        config = dict(config, clip=keras.layers.deserialize(config["clip"]))
        return cls(**config)


def check_blocks(
    argument: str, blocks: Sequence[int], num_layers: int, first: int = 0
) -> None:
    """Raise a `ValueError` unless blocks are ascending and exist."""
    blocks, known = list(blocks), range(first, num_layers)
    if blocks != sorted(set(blocks)) or not set(blocks) <= set(known):
        raise ValueError(
            f"`{argument}` must be ascending block numbers from {first} to "
            f"{num_layers - 1}, "
            f"since this CLIP has {num_layers} blocks. Received: {argument}={blocks}"
        )


def load_clip(
    source: str,
    dtype: str | keras.DTypePolicy | None = None,
    argument: str = "clip",
) -> tuple[keras_hub.models.CLIPBackbone, CLIPTokenizer]:
    """Load a CLIP and its tokenizer.

    Args:
        source: string. A keras-hub preset, hub handle or preset folder of a CLIP.
        dtype: string or `keras.DTypePolicy`.
        argument: string. Who named the source, to be named in the error.

    Returns:
        A tuple of `keras_hub.models.CLIPBackbone` and `keras_hub.models.CLIPTokenizer`.

    Raises:
        ValueError: if it cannot be loaded.
    """
    try:
        backbone = keras_hub.models.CLIPBackbone.from_preset(source, dtype=dtype)
        tokenizer = CLIPTokenizer.from_preset(source)
    except Exception as error:
        hint = ", or random for a smoke test" if argument == "clip" else ""
        raise ValueError(
            f"the CLIP {source!r} could not be loaded ({first_words(error)}): give the "
            f"folder of a keras-hub CLIP preset as `{argument}`{hint}"
        ) from error
    return backbone, tokenizer
