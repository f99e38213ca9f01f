"""GALIP as a keras-hub backbone: from token ids and noise to images."""

from __future__ import annotations

from typing import Any, NoReturn

import keras
from keras_hub.models import Backbone

from galip_keras.models.architectures import (
    ARCHITECTURES,
    build_generator,
    preset_folder,
)
from galip_keras.models.mate_g import MateG
from galip_keras.models.precision import (
    forget_mixed_precision,
    set_precision,
    with_policy,
)


@keras.saving.register_keras_serializable(package="galip_keras")
class GALIPBackbone(Backbone):
    """CLIP's text encoder and Mate-G as one functional model.

    Args:
        generator: a `galip_keras.MateG`. It holds the frozen CLIP.
        dtype: string or `keras.DTypePolicy`. Defaults to the generator's.
        name: string.
        **kwargs: other keyword arguments of `keras_hub.models.Backbone`.

    Call arguments:
        inputs: dict with `"token_ids"`, an int tensor `(batch_size, sequence_length)`,
            and `"noise"`, a float tensor `(batch_size, latent_dim)`.

    Returns:
        Images, a float32 tensor `(batch_size, image_size, image_size, 3)`, around
        [-1, 1] but not clipped to it.

    Example:

    ```python
    backbone = galip_keras.GALIPBackbone.from_preset("toybirds")
    inputs = {"token_ids": np.ones((1, 77), "int32"), "noise": np.zeros((1, 100))}
    backbone(inputs)  # (1, 64, 64, 3)
    ```

    Reference:
        [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
        https://arxiv.org/abs/2301.12959)
    """

    def __init__(
        self,
        generator: MateG,
        dtype: str | keras.DTypePolicy | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.generator = generator
        self.clip = generator.clip

        # === Functional Model ===
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        noise_input = keras.Input((generator.latent_dim,), name="noise")
        images = generator(noise_input, self.clip.embed_text(token_ids))
        super().__init__(
            inputs={"token_ids": token_ids, "noise": noise_input},
            outputs=images,
            dtype=dtype or generator.dtype_policy,
            name=name,
            **kwargs,
        )
        # `trainable=True` in a saved config has just unfrozen all layers inside.
        self.clip.trainable = False

    @property
    def latent_shape(self) -> tuple[None, int]:
        """`(None, latent_dim)`, the shape of the noise."""
        return (None, self.generator.latent_dim)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"generator": keras.layers.serialize(self.generator)})
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GALIPBackbone:
        generator = config["generator"]
        policy = keras.dtype_policies.get(config.get("dtype"))
        saved = generator["config"].get("dtype", policy)
        is_another = policy.name != keras.dtype_policies.get(saved).name
        if is_another:
            # `from_preset(dtype=...)` means the networks inside. The text encoder stays
            # exact: it takes little time, and its errors would change whole images.
            exact = keras.DTypePolicy("float32")
            generator = with_policy(generator, policy)
            clip = with_policy(generator["config"]["clip"]["config"]["clip"], exact)
            clip["config"]["vision_encoder"] = with_policy(
                clip["config"]["vision_encoder"], policy
            )
            generator["config"]["clip"]["config"]["clip"] = clip
        generator = keras.layers.deserialize(generator)
        if is_another:
            set_precision(generator, policy)
            set_precision(generator.clip.clip, exact)
            set_precision(generator.clip.clip.vision_encoder, policy)
        return super().from_config(dict(config, generator=generator))

    def save_to_preset(self, preset_dir: str, *args: Any, **kwargs: Any) -> None:
        """As in keras-hub. The precision of the computation is not saved.

        Weights in half precision are saved as they were rounded.
        """
        super().save_to_preset(preset_dir, *args, **kwargs)
        forget_mixed_precision(preset_dir)

    def quantize(self, mode: Any = None, **kwargs: Any) -> NoReturn:
        """Refuse: Keras cannot quantize CLIP's attention on every backend.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "GALIP is quantized when it is exported: galip_keras.export.writers.export("
            'model, folder, "litert", quantize="int8")'
        )

    @classmethod
    def from_preset(
        cls, preset: str, load_weights: bool = True, **kwargs: Any
    ) -> GALIPBackbone:
        """As in keras-hub, for the names in `BUNDLED` and `ARCHITECTURES` too."""
        if preset in ARCHITECTURES:
            generator, _ = build_generator(preset, **kwargs)
            return cls(generator)
        return super().from_preset(preset_folder(preset), load_weights, **kwargs)
