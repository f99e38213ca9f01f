"""The checkpoints of GALIP's authors as Keras models.

Only this package knows the names in their files. Everything goes through `Tensors`,
which hands out each tensor once and must be empty in the end: nothing is loaded twice,
and nothing is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from galip_keras import __version__
from galip_keras.console import say
from galip_keras.convert import huggingface
from galip_keras.convert.clip import (
    clip_from_state,
    clip_tokenizer,
    is_clip,
    load_any_clip,
    load_vision,
    read_clip,
)
from galip_keras.convert.tensors import (
    Tensors,
    assign,
    assign_conv,
    assign_dense,
    without_wrappers,
)
from galip_keras.files import sha256, write_folder
from galip_keras.models.backbone import GALIPBackbone
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.mate_d import MateD
from galip_keras.models.mate_g import MateG
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor
from galip_keras.models.text_to_image import GALIPTextToImage
from galip_keras.presets import card
from galip_keras.presets.fine_tuning import DISCRIMINATOR
from galip_keras.presets.precision import halve
from galip_keras.presets.sizes import describe

# The name of the CLIP-ViT in the authors' generator.
_VIT_PREFIX = "mapping.CLIP_ViT."

_NETWORKS = ("netG", "netG_ema", "netD", "netC")


def generator_from_state(
    state: Mapping[str, Any], clip: keras_hub.models.CLIPBackbone
) -> MateG:
    """Build the generator from the authors' `netG`.

    The CLIP-ViT inside it comes from the checkpoint. The text encoder and the image
    embedding come from `clip`.

    Args:
        state: dict of NumPy arrays by the authors' names, with or without `module.`.
        clip: the `keras_hub.models.CLIPBackbone` it was trained on. Its vision encoder
            is overwritten with the checkpoint's values.

    Returns:
        A `galip_keras.MateG`.

    Raises:
        ValueError: if a tensor is missing, left over or of the wrong shape, or if the
            checkpoint was trained on another CLIP.
    """
    tensors = Tensors(without_wrappers(state))
    vit = tensors.under(_VIT_PREFIX)
    _check_same_clip(clip, vit)
    load_vision(clip.vision_encoder, vit)
    generator = _empty_generator(tensors, FrozenCLIP(clip))
    predictor = generator.bridge_predictor
    _load_code(predictor, tensors.under("fc_code."))
    for i, block in enumerate(predictor.fusion_blocks):
        source = tensors.under(f"mapping.FBlocks.{i}.")
        assign_conv(block.conv_1, source.under("conv1."))
        _load_fusion(block.fusion_1, source.under("fuse1."))
        assign_conv(block.conv_2, source.under("conv2."))
        _load_fusion(block.fusion_2, source.under("fuse2."))
    assign_conv(predictor.conv, tensors.under("mapping.conv_fuse."))
    prompts = generator.prompt_predictor
    assert prompts is not None  # The authors' generator always has prompts.
    assign_dense(prompts.dense, tensors.under("mapping.fc_prompt."))
    assign_conv(generator.conv, tensors.under("mapping.conv."))
    for i, block in enumerate(generator.generator_blocks):
        source = tensors.under(f"GBlocks.{i}.")
        _load_fusion(block.fusion_1, source.under("fuse1."))
        assign_conv(block.conv_1, source.under("c1."))
        _load_fusion(block.fusion_2, source.under("fuse2."))
        assign_conv(block.conv_2, source.under("c2."))
        if block.shortcut is not None:
            assign_conv(block.shortcut, source.under("c_sc."))
    assign_conv(generator.to_rgb, tensors.under("to_rgb.1."))
    tensors.check_empty()
    return generator


def _empty_generator(tensors: Tensors, clip: FrozenCLIP) -> MateG:
    num_prompts = tensors.shape("mapping.fc_prompt.weight")[0] // clip.hidden_dim
    return MateG(
        clip,
        latent_dim=tensors.shape("fc_code.weight")[1],
        base_channels=tensors.shape("to_rgb.1.weight")[1],
        bridge_channels=tensors.shape("mapping.conv_fuse.weight")[1],
        prompt_layers=tuple(range(1, num_prompts + 1)),
    )


def _load_code(predictor: keras.Layer, tensors: Tensors) -> None:
    """Load the dense layer: the authors' fills channels first, ours channels last."""
    shape = (predictor.base_channels, predictor.grid_size, predictor.grid_size)
    kernel = tensors.take("weight")
    latent_dim = kernel.shape[1]
    if kernel.shape[0] != np.prod(shape):
        raise ValueError(f"fc_code.weight has the shape {kernel.shape}.")
    kernel = kernel.reshape(*shape, latent_dim).transpose(1, 2, 0, 3)
    assign(predictor.code.kernel, kernel.reshape(-1, latent_dim).T)
    bias = tensors.take("bias").reshape(shape).transpose(1, 2, 0)
    assign(predictor.code.bias, bias.reshape(-1))


def _load_fusion(fusion: keras.Layer, tensors: Tensors) -> None:
    perceptrons = [
        tensors.under(f"affine{i}.fc_{name}.")
        for i in (0, 1)
        for name in ("gamma", "beta")
    ]

    def take(name: str) -> list[np.ndarray]:
        return [p.take(name).T for p in perceptrons]

    assign(fusion.hidden_kernel, np.concatenate(take("linear1.weight"), axis=-1))
    assign(fusion.hidden_bias, np.concatenate(take("linear1.bias")))
    assign(fusion.output_kernel, np.stack(take("linear2.weight")))
    assign(fusion.output_bias, np.stack(take("linear2.bias")))


def _check_same_clip(clip: keras_hub.models.CLIPBackbone, vit: Tensors) -> None:
    embeddings = clip.vision_encoder.embedding.position_embedding.embeddings
    ours = keras.ops.convert_to_numpy(embeddings)
    theirs = vit.peek("positional_embedding")
    # A copy in half precision differs by less than a thousandth of the largest value.
    if ours.shape != theirs.shape or not np.allclose(
        ours, theirs, rtol=0, atol=1e-2 * np.abs(theirs).max()
    ):
        raise ValueError(
            "The checkpoint was trained on another CLIP than the one given. "
            "Give the right one as `clip`."
        )


def discriminator_from_state(
    extractor_state: Mapping[str, Any], head_state: Mapping[str, Any], clip: FrozenCLIP
) -> MateD:
    """Build the discriminator from the authors' `netD` and `netC`.

    Args:
        extractor_state: dict of NumPy arrays, `netD`.
        head_state: dict of NumPy arrays, `netC`.
        clip: the `galip_keras.FrozenCLIP` it was trained on.

    Returns:
        A `galip_keras.MateD`.

    Raises:
        ValueError: if a tensor is missing, left over or of the wrong shape.
    """
    tensors = Tensors(without_wrappers(extractor_state))
    head = Tensors(without_wrappers(head_state))
    discriminator = MateD.for_clip(
        clip,
        extractor_channels=tensors.shape("main.conv_r.0.weight")[0],
        head_channels=head.shape("joint_conv.0.weight")[0],
    )
    for i, block in enumerate(discriminator.tap_blocks):
        source = tensors.under(f"DBlocks.{i}.")
        _load_discriminator_block(block, source)
        assign(block.beta, source.take("beta").reshape(()))
        # The authors' first blocks hold a 1x1 shortcut that no forward pass uses.
        source.take("conv_s.weight")
        source.take("conv_s.bias")
    source = tensors.under("main.")
    _load_discriminator_block(discriminator.narrow_block, source)
    assign_conv(discriminator.narrow_block.shortcut, source.under("conv_s."))
    assign_conv(discriminator.head_conv_1, head.under("joint_conv.0."))
    assign_conv(discriminator.head_conv_2, head.under("joint_conv.2."))
    tensors.check_empty()
    head.check_empty()
    return discriminator


def _load_discriminator_block(block: keras.Layer, tensors: Tensors) -> None:
    assign_conv(block.conv_1, tensors.under("conv_r.0."))
    assign_conv(block.conv_2, tensors.under("conv_r.2."))
    assign(block.gamma, tensors.take("gamma").reshape(()))


def convert(
    checkpoint: str,
    out: str,
    clip: str = "clip_vit_base_patch32",
    vocabulary: str | None = None,
    half: bool = False,
) -> GALIPTextToImage | keras_hub.models.CLIPBackbone:
    """Convert a checkpoint of GALIP's authors, or of CLIP, to a preset folder.

    Args:
        checkpoint: string. A `.pth` or `.safetensors` file: the authors' (`netG` or
            `netG_ema`, and `netD` and `netC` if present), or weights of CLIP by
            OpenAI's or Hugging Face's names.
        out: string. The folder to write, which must not exist yet. For GALIP it also
            gets a model card, and the discriminator as `discriminator.weights.h5`.
        clip: string. The CLIP that GALIP was trained on: a keras-hub preset, a preset
            folder, or a file of OpenAI's weights (`ViT-B-32.pt`), of open_clip's or
            of Hugging Face's (`model.safetensors`).
        vocabulary: string. OpenAI's `bpe_simple_vocab_16e6.txt.gz`, or Hugging
            Face's `tokenizer.json` or `vocab.json`, if the CLIP comes from a file of
            weights. Defaults to the vocabulary beside the file, or else to that of
            keras-hub's `clip_vit_base_patch32`.
        half: bool. Whether to store the weights in half precision. Computation stays
            in float32.

    Returns:
        The model written: a `GALIPTextToImage` or a `CLIPBackbone`.

    Raises:
        ValueError: if the file is something else; the message says what was found.
        FileExistsError: if `out` exists.
    """
    if os.path.exists(out):
        raise FileExistsError(f"{out} exists already. Choose another `out`.")
    checkpoint = huggingface.weights_in(checkpoint) or checkpoint
    state = read_clip(checkpoint)
    if is_clip(state):
        vocabulary = vocabulary or huggingface.vocabulary_beside(checkpoint)
        return _convert_clip(state, Path(out), vocabulary, half)
    networks = _networks(state, checkpoint)
    backbone, tokenizer = load_any_clip(clip, vocabulary)
    generator = generator_from_state(networks.pop("netG"), backbone)
    preprocessor = GALIPTextToImagePreprocessor(tokenizer)
    model = GALIPTextToImage(GALIPBackbone(generator), preprocessor)
    with write_folder(Path(out)) as folder:
        model.save_to_preset(str(folder))
        if "netD" in networks and "netC" in networks:
            discriminator = discriminator_from_state(
                networks.pop("netD"), networks.pop("netC"), generator.clip
            )
            discriminator.save_weights(folder / DISCRIMINATOR)
        card.write(folder, describe(model), _origin(checkpoint, out, clip, state))
        if half:
            halve(folder)
    return model


def _convert_clip(
    state: dict[str, Any], out: Path, vocabulary: str | None, half: bool
) -> keras_hub.models.CLIPBackbone:
    backbone = clip_from_state(state)
    tokenizer = clip_tokenizer(backbone, vocabulary)
    with write_folder(out) as folder:
        backbone.save_to_preset(str(folder))
        tokenizer.save_to_preset(str(folder))
        if half:
            halve(folder)
    return backbone


def _networks(state: dict[str, Any], path: str) -> dict[str, Any]:
    """Find the networks by the authors' names, the averaged generator first."""
    inner = state.get("model", state.get("state_dict", state))
    found = {**state, **inner} if isinstance(inner, dict) else dict(state)
    networks = _nested(found)
    bare = without_wrappers(found)
    if "fc_code.weight" in bare:
        networks = {"netG": bare}
    if "netG_ema" in networks:
        averaged = networks.pop("netG_ema")
        if "netG" in networks:
            say(f"{path} holds netG and netG_ema: the averaged netG_ema is used.")
        networks["netG"] = averaged
    if not isinstance(networks.get("netG"), dict):
        names = ", ".join(map(str, list(found)[:5])) or "nothing by name"
        raise ValueError(
            f"{path} is no checkpoint of GALIP (model/netG) or CLIP "
            f"(visual.conv1.weight): it holds {names}."
        )
    # The counter of PyTorch's AveragedModel is no weight.
    networks["netG"] = {k: v for k, v in networks["netG"].items() if k != "n_averaged"}
    return networks


def _nested(found: dict[str, Any]) -> dict[str, Any]:
    """The networks of a checkpoint, also of a flat one with names like `netG.a.b`."""
    networks: dict[str, Any] = {x: found[x] for x in _NETWORKS if x in found}
    for name, value in without_wrappers(found).items():
        network, _, rest = name.removeprefix("model.").partition(".")
        if network in _NETWORKS and rest:
            networks.setdefault(network, {})[rest] = value
    return networks


def _origin(
    checkpoint: str, out: str, clip: str, state: dict[str, Any]
) -> dict[str, Any]:
    epoch = state.get("epoch")
    return {
        "title": os.path.basename(os.path.abspath(out)),
        "made": f"`{os.path.basename(checkpoint)}` of GALIP's authors"
        f"{f', epoch {epoch}' if isinstance(epoch, int) else ''}, converted by "
        f"galip-keras {__version__}. The file's SHA-256 is {sha256(checkpoint)}.",
        "data": "The file does not say: see the authors' page about this checkpoint, "
        "https://github.com/tobran/GALIP.",
        "clip": f"`{os.path.basename(clip)}`, its vision transformer from the file",
        "figures": {},
    }
