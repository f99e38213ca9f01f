"""The frozen CLIP that GALIP stands on: a keras-hub `CLIPBackbone`, used from inside.

Nothing else in the package reaches into keras-hub's CLIP classes.
"""

import keras
import keras_hub
from keras import ops

from galip_keras.console import first_words
from galip_keras.models.convolutions import nearest_resize

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

# Scale and offset from pixels in [-1, 1] to what CLIP's mean and deviation expect.
# "reference" is what the authors' code computes, and their weights depend on it.
_PIXEL_SCALING = {"reference": (0.25, 0.75), "standard": (0.5, 0.5)}


@keras.saving.register_keras_serializable(package="galip_keras")
class FrozenCLIP(keras.layers.Layer):
    """A frozen CLIP: tapped image features, embeddings, and its ViT run on a bridge.

    Args:
        clip: a `keras_hub.models.CLIPBackbone`. It is frozen in place.
        feature_layers: tuple of ints. Transformer blocks of the vision encoder, counted
            from 0, whose outputs are the image features. -1 stands for the embeddings
            of the patches, before the first block: all that is in the pixels.
        pixel_scaling: `"reference"` or `"standard"`. How pixels in [-1, 1] are mapped
            before CLIP's own normalisation: `0.25 x + 0.75`, as the authors' code
            does, or `0.5 x + 0.5`.
        **kwargs: other keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: where a feature layer does not exist or the images are not square.

    Example:

    ```python
    # Or keras_hub.models.CLIPBackbone.from_preset("clip_vit_base_patch32").
    backbone = galip_keras.models.random_clip.random_clip(64, hidden_dim=96)[0]
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
        clip,
        feature_layers=(1, 4, 8),
        pixel_scaling="reference",
        dtype=None,
        name="clip",
        **kwargs,
    ):
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
        self.clip = clip
        self.feature_layers = tuple(feature_layers)
        self.pixel_scaling = pixel_scaling
        # keras-hub creates the position ids as zeros and relies on weights being loaded
        # over them; without this a randomly initialised CLIP sees no positions.
        positions = encoder.embedding.position_ids
        positions.assign(ops.arange(positions.shape[1], dtype=positions.dtype)[None])
        # OpenAI's epsilon, in keras-hub's text encoder too, which ends on 1e-6: through
        # the kinks of the generator the difference would show in its gradients.
        clip.text_encoder.layer_norm.epsilon = 1e-5
        self.trainable = False
        self.built = True

    @property
    def image_size(self):
        """Height and width of CLIP's own input images, in pixels."""
        return self.clip.vision_encoder.image_shape[0]

    @property
    def grid_size(self):
        """Height and width of the feature maps, in patches."""
        return self.image_size // self.clip.vision_encoder.patch_size

    @property
    def hidden_dim(self):
        """Channels of the feature maps."""
        return self.clip.vision_encoder.hidden_dim

    @property
    def num_layers(self):
        """Transformer blocks of the vision encoder."""
        return self.clip.vision_encoder.num_layers

    @property
    def embedding_dim(self):
        """Size of the embedding that images and sentences share."""
        return self.clip.projection_dim

    @property
    def text_variables(self):
        """The variables that sentence embeddings depend on."""
        return [*self.clip.text_encoder.variables, *self.clip.text_projection.variables]

    def embed_text(self, token_ids):
        """Sentence embeddings, projected and not normalised.

        Args:
            token_ids: int tensor `(batch_size, sequence_length)`.

        Returns:
            A float32 tensor `(batch_size, embedding_dim)`.
        """
        return ops.cast(self.clip.get_text_embeddings(token_ids), "float32")

    def extract_features(self, images):
        """The tapped feature maps of images, without their class tokens.

        Args:
            images: tensor `(batch_size, height, height, 3)` in [-1, 1], of any size.

        Returns:
            A tensor `(batch_size, len(feature_layers), grid_size, grid_size,
            hidden_dim)`.
        """
        # The blocks after the last tap would be computed for nothing.
        features, _ = self._encode(images, num_layers=max(self.feature_layers) + 1)
        return features

    def extract_features_and_embed(self, images):
        """The tapped feature maps of images and their embeddings.

        Args:
            images: tensor `(batch_size, height, height, 3)` in [-1, 1], of any size.

        Returns:
            A tuple of the features, as `extract_features` gives them, and the
            projected, layer-normalised class tokens, a float32 tensor
            `(batch_size, embedding_dim)`.
        """
        features, x = self._encode(images, num_layers=self.num_layers)
        class_token = self.clip.vision_encoder.layer_norm(x[:, :1])[:, 0]
        embeddings = self.clip.vision_projection(class_token)
        return features, ops.cast(embeddings, "float32")

    def transform_bridge(self, bridge, prompts, prompt_layers):
        """Runs the vision transformer on a bridge feature in place of image patches.

        Args:
            bridge: tensor `(batch_size, grid_size, grid_size, hidden_dim)`. Stands
                where the patch embeddings stand.
            prompts: tensor `(batch_size, len(prompt_layers), hidden_dim)`. Prompt i is
                one more token, without position, in block `prompt_layers[i]` alone.
                None where `prompt_layers` is empty.
            prompt_layers: sequence of ints. Blocks counted from 0.

        Returns:
            The visual map, a tensor of the shape of `bridge`. No post layer norm.
        """
        encoder = self.clip.vision_encoder
        bridge = ops.cast(bridge, self.compute_dtype)
        x = ops.reshape(bridge, (-1, self.grid_size**2, self.hidden_dim))
        class_token = ops.cast(encoder.embedding.class_embedding, x.dtype)
        class_token = ops.zeros_like(x[:, :1]) + class_token
        x = ops.concatenate([class_token, x], axis=1)
        x = x + encoder.embedding.position_embedding(encoder.embedding.position_ids)
        x = encoder.pre_layer_norm(x)
        for i, block in enumerate(encoder.encoder_layers):
            if i in prompt_layers:
                prompt = prompts[:, prompt_layers.index(i)][:, None]
                prompt = ops.cast(prompt, x.dtype)
                x = block(ops.concatenate([x, prompt], axis=1))[:, :-1]
            else:
                x = block(x)
        return self._to_map(x)

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

    def get_config(self):
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
    def from_config(cls, config):
        config = dict(config, clip=keras.layers.deserialize(config["clip"]))
        return cls(**config)


def check_blocks(argument, blocks, num_layers, first=0):
    blocks, known = list(blocks), range(first, num_layers)
    if blocks != sorted(set(blocks)) or not set(blocks) <= set(known):
        raise ValueError(
            f"`{argument}` must be ascending block numbers from {first} to "
            f"{num_layers - 1}, "
            f"since this CLIP has {num_layers} blocks. Received: {argument}={blocks}"
        )


def load_clip(source, dtype=None):
    """Loads a CLIP and its tokenizer.

    Args:
        source: string. A keras-hub preset, hub handle or preset folder of a CLIP.
        dtype: string or `keras.DTypePolicy`.

    Returns:
        A tuple of `keras_hub.models.CLIPBackbone` and `keras_hub.models.CLIPTokenizer`.

    Raises:
        ValueError: where it cannot be loaded, in one line that says what to do.
    """
    try:
        backbone = keras_hub.models.CLIPBackbone.from_preset(source, dtype=dtype)
        tokenizer = keras_hub.models.CLIPTokenizer.from_preset(source)
    except Exception as error:
        raise ValueError(
            f"the CLIP {source!r} could not be loaded ({first_words(error)}): give the "
            "folder of a keras-hub CLIP preset as `clip`, or random for a smoke test"
        ) from error
    return backbone, tokenizer
