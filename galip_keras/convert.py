"""The authors' PyTorch checkpoints and OpenAI's CLIP weights, as Keras models.

This is the only place that knows their names. Everything goes through `_Tensors`, which
hands out each tensor once and in the end must be empty: nothing is loaded twice,
nothing is forgotten.
"""

import gzip
import hashlib
import os
import re
from pathlib import Path

import keras
import keras_hub
import numpy as np

from galip_keras import __version__, card
from galip_keras.checkpoints import write_folder
from galip_keras.clip import FrozenCLIP, byte_pair_tokenizer, load_clip
from galip_keras.loading import DISCRIMINATOR, describe, halve
from galip_keras.mate_d import MateD
from galip_keras.mate_g import MateG
from galip_keras.pytorch import read_state
from galip_keras.text_to_image import (
    GALIPBackbone,
    GALIPTextToImage,
    GALIPTextToImagePreprocessor,
)

# In the authors' generator the CLIP-ViT stands under this name.
_VIT_PREFIX = "mapping.CLIP_ViT."

# The head size of every CLIP that OpenAI published; no tensor's shape tells it.
_HEAD_DIM = 64


class _Tensors:
    """Named NumPy arrays in PyTorch's layout, each to be taken once."""

    def __init__(self, tensors, prefix=""):
        self.tensors = tensors
        self.prefix = prefix

    def under(self, prefix):
        """The same arrays, names relative to a longer prefix."""
        return _Tensors(self.tensors, self.prefix + prefix)

    def shape(self, name):
        return tuple(self._find(name).shape)

    def peek(self, name):
        # Only now: a file need not be in memory as a whole.
        return np.asarray(self._find(name)).astype("float32", copy=False)

    def _find(self, name):
        if self.prefix + name not in self.tensors:
            raise ValueError(f"The checkpoint has no tensor {self.prefix + name!r}.")
        return self.tensors[self.prefix + name]

    def take(self, name):
        value = self.peek(name)
        del self.tensors[self.prefix + name]
        return value

    def count(self, pattern):
        """How many numbers the one group of a regular expression matches."""
        found = (re.match(pattern, name) for name in self.tensors)
        return len({match[1] for match in found if match})


def _assign(variable, value):
    if tuple(variable.shape) != value.shape:
        raise ValueError(
            f"The checkpoint's tensor for {variable.path} has the shape {value.shape}; "
            f"{tuple(variable.shape)} was expected."
        )
    variable.assign(value)


def _conv(layer, tensors):
    _assign(layer.kernel, tensors.take("weight").transpose(2, 3, 1, 0))
    if layer.use_bias:
        _assign(layer.bias, tensors.take("bias"))


def _dense(layer, tensors):
    _assign(layer.kernel, tensors.take("weight").T)
    _assign(layer.bias, tensors.take("bias"))


def _norm(layer, tensors):
    _assign(layer.gamma, tensors.take("weight"))
    _assign(layer.beta, tensors.take("bias"))


# === CLIP ===


def clip_from_state(state):
    """Builds a CLIP from OpenAI's weights.

    Args:
        state: dict of NumPy arrays by OpenAI's names (`visual.conv1.weight`, ...).

    Returns:
        A `keras_hub.models.CLIPBackbone`.

    Raises:
        ValueError: where a tensor is missing, left over or of the wrong shape.
    """
    tensors = _Tensors(dict(state))
    clip = _empty_clip(tensors)
    _load_vision(clip.vision_encoder, tensors.under("visual."))
    _norm(clip.vision_encoder.layer_norm, tensors.under("visual.ln_post."))
    _assign(clip.vision_projection.kernel, tensors.take("visual.proj"))
    text = clip.text_encoder
    _assign(
        text.embedding.token_embedding.embeddings,
        tensors.take("token_embedding.weight"),
    )
    _assign(
        text.embedding.position_embedding.position_embeddings,
        tensors.take("positional_embedding"),
    )
    _load_transformer(text, tensors.under("transformer."))
    _norm(text.layer_norm, tensors.under("ln_final."))
    _assign(clip.text_projection.kernel, tensors.take("text_projection"))
    _assign(clip.clip_head.logit_scale, tensors.take("logit_scale"))
    # Facts about the architecture that OpenAI's archives carry beside the weights.
    for name in ("input_resolution", "context_length", "vocab_size"):
        tensors.tensors.pop(name, None)
    _check_empty(tensors)
    return clip


def _empty_clip(tensors):
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


def _load_vision(encoder, tensors):
    """Everything that the generator's CLIP-ViT has too: no post norm, no projection."""
    embedding = encoder.embedding
    kernel = tensors.take("conv1.weight").transpose(2, 3, 1, 0)
    _assign(embedding.patch_embedding.kernel, kernel)
    _assign(embedding.class_embedding, tensors.take("class_embedding"))
    positions = tensors.take("positional_embedding")
    _assign(embedding.position_embedding.embeddings, positions)
    embedding.position_ids.assign(np.arange(len(positions))[None])
    _norm(encoder.pre_layer_norm, tensors.under("ln_pre."))
    _load_transformer(encoder, tensors.under("transformer."))


def _load_transformer(encoder, tensors):
    for i, block in enumerate(encoder.encoder_layers):
        source = tensors.under(f"resblocks.{i}.")
        _norm(block.layer_norm_1, source.under("ln_1."))
        _load_attention(block.attention, source.under("attn."))
        _norm(block.layer_norm_2, source.under("ln_2."))
        _dense(block.dense_1, source.under("mlp.c_fc."))
        _dense(block.dense_2, source.under("mlp.c_proj."))


def _load_attention(attention, tensors):
    kernels = np.split(tensors.take("in_proj_weight"), 3)
    biases = np.split(tensors.take("in_proj_bias"), 3)
    layers = (attention.query_dense, attention.key_dense, attention.value_dense)
    for layer, kernel, bias in zip(layers, kernels, biases):
        _assign(layer.kernel, kernel.T.reshape(layer.kernel.shape))
        _assign(layer.bias, bias.reshape(layer.bias.shape))
    layer = attention.output_dense
    kernel = tensors.take("out_proj.weight").T.reshape(layer.kernel.shape)
    _assign(layer.kernel, kernel)
    _assign(layer.bias, tensors.take("out_proj.bias"))


# === Mate-G ===


def generator_from_state(state, clip):
    """Builds the generator from the authors' `netG`.

    The CLIP-ViT inside it comes from the checkpoint, text encoder and image embedding
    from the CLIP given.

    Args:
        state: dict of NumPy arrays by the authors' names, with or without `module.`.
        clip: the `keras_hub.models.CLIPBackbone` it was trained on. Its vision encoder
            takes the checkpoint's values in place.

    Returns:
        A `galip_keras.MateG`.

    Raises:
        ValueError: where a tensor is missing, left over or of the wrong shape, or the
            checkpoint stands on another CLIP.
    """
    tensors = _Tensors(_without_module(state))
    vit = tensors.under(_VIT_PREFIX)
    _check_same_clip(clip, vit)
    _load_vision(clip.vision_encoder, vit)
    generator = _empty_generator(tensors, FrozenCLIP(clip))
    predictor = generator.bridge_predictor
    _load_code(predictor, tensors.under("fc_code."))
    for i, block in enumerate(predictor.fusion_blocks):
        source = tensors.under(f"mapping.FBlocks.{i}.")
        _conv(block.conv_1, source.under("conv1."))
        _load_fusion(block.fusion_1, source.under("fuse1."))
        _conv(block.conv_2, source.under("conv2."))
        _load_fusion(block.fusion_2, source.under("fuse2."))
    _conv(predictor.conv, tensors.under("mapping.conv_fuse."))
    _dense(generator.prompt_predictor.dense, tensors.under("mapping.fc_prompt."))
    _conv(generator.conv, tensors.under("mapping.conv."))
    for i, block in enumerate(generator.generator_blocks):
        source = tensors.under(f"GBlocks.{i}.")
        _load_fusion(block.fusion_1, source.under("fuse1."))
        _conv(block.conv_1, source.under("c1."))
        _load_fusion(block.fusion_2, source.under("fuse2."))
        _conv(block.conv_2, source.under("c2."))
        if block.shortcut is not None:
            _conv(block.shortcut, source.under("c_sc."))
    _conv(generator.to_rgb, tensors.under("to_rgb.1."))
    _check_empty(tensors)
    return generator


def _empty_generator(tensors, clip):
    num_prompts = tensors.shape("mapping.fc_prompt.weight")[0] // clip.hidden_dim
    return MateG(
        clip,
        latent_dim=tensors.shape("fc_code.weight")[1],
        base_channels=tensors.shape("to_rgb.1.weight")[1],
        bridge_channels=tensors.shape("mapping.conv_fuse.weight")[1],
        prompt_layers=tuple(range(1, num_prompts + 1)),
    )


def _load_code(predictor, tensors):
    """The authors' dense layer fills channels first, ours channels last."""
    shape = (predictor.base_channels, predictor.grid_size, predictor.grid_size)
    kernel = tensors.take("weight")
    latent_dim = kernel.shape[1]
    if kernel.shape[0] != np.prod(shape):
        raise ValueError(f"fc_code.weight has the shape {kernel.shape}.")
    kernel = kernel.reshape(*shape, latent_dim).transpose(1, 2, 0, 3)
    _assign(predictor.code.kernel, kernel.reshape(-1, latent_dim).T)
    bias = tensors.take("bias").reshape(shape).transpose(1, 2, 0)
    _assign(predictor.code.bias, bias.reshape(-1))


def _load_fusion(fusion, tensors):
    perceptrons = [
        tensors.under(f"affine{i}.fc_{name}.")
        for i in (0, 1)
        for name in ("gamma", "beta")
    ]

    def take(name):
        return [p.take(name).T for p in perceptrons]

    _assign(fusion.hidden_kernel, np.concatenate(take("linear1.weight"), axis=-1))
    _assign(fusion.hidden_bias, np.concatenate(take("linear1.bias")))
    _assign(fusion.output_kernel, np.stack(take("linear2.weight")))
    _assign(fusion.output_bias, np.stack(take("linear2.bias")))


def _check_same_clip(clip, vit):
    embeddings = clip.vision_encoder.embedding.position_embedding.embeddings
    ours = keras.ops.convert_to_numpy(embeddings)
    theirs = vit.peek("positional_embedding")
    # A copy in half precision differs by less than a thousandth of the largest value.
    if ours.shape != theirs.shape or not np.allclose(
        ours, theirs, rtol=0, atol=1e-2 * np.abs(theirs).max()
    ):
        raise ValueError(
            "The checkpoint was trained on another CLIP than the one given. "
            "Give the right one with `--clip`."
        )


# === Mate-D ===


def discriminator_from_state(extractor_state, head_state, clip):
    """Builds the discriminator from the authors' `netD` and `netC`.

    Args:
        extractor_state: dict of NumPy arrays, `netD`.
        head_state: dict of NumPy arrays, `netC`.
        clip: the `galip_keras.FrozenCLIP` it was trained on.

    Returns:
        A `galip_keras.MateD`.

    Raises:
        ValueError: where a tensor is missing, left over or of the wrong shape.
    """
    tensors = _Tensors(_without_module(extractor_state))
    head = _Tensors(_without_module(head_state))
    discriminator = MateD.for_clip(
        clip,
        extractor_channels=tensors.shape("main.conv_r.0.weight")[0],
        head_channels=head.shape("joint_conv.0.weight")[0],
    )
    for i, block in enumerate(discriminator.tap_blocks):
        source = tensors.under(f"DBlocks.{i}.")
        _load_discriminator_block(block, source)
        _assign(block.beta, source.take("beta").reshape(()))
        # The authors' first blocks carry a 1x1 shortcut that no forward pass uses.
        source.take("conv_s.weight")
        source.take("conv_s.bias")
    source = tensors.under("main.")
    _load_discriminator_block(discriminator.narrow_block, source)
    _conv(discriminator.narrow_block.shortcut, source.under("conv_s."))
    _conv(discriminator.head_conv_1, head.under("joint_conv.0."))
    _conv(discriminator.head_conv_2, head.under("joint_conv.2."))
    _check_empty(tensors)
    _check_empty(head)
    return discriminator


def _load_discriminator_block(block, tensors):
    _conv(block.conv_1, tensors.under("conv_r.0."))
    _conv(block.conv_2, tensors.under("conv_r.2."))
    _assign(block.gamma, tensors.take("gamma").reshape(()))


# === Files ===


def read_vocabulary(path, vocabulary_size=49408):
    """Reads OpenAI's `bpe_simple_vocab_16e6.txt.gz`.

    Args:
        path: string. The file of byte-pair merges.
        vocabulary_size: int. Tokens of the CLIP; the file holds more merges than it
            uses.

    Returns:
        A `keras_hub.models.CLIPTokenizer`.

    Raises:
        ValueError: where the file is something else or too short.
    """
    # The rest are 256 bytes, the same at the end of a word, start and end of the text.
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


def convert(checkpoint, out, clip="clip_vit_base_patch32", vocabulary=None, half=False):
    """Converts a checkpoint of the authors, or of CLIP, to a preset folder.

    Args:
        checkpoint: string. A `.pth` file: the authors' (`netG`, and `netD` and `netC`
            where present), or weights of CLIP by OpenAI's names, a state dict or
            OpenAI's own TorchScript archive.
        out: string. The folder to write; it must not exist yet. For GALIP a model card
            stands in it, and the discriminator as `discriminator.weights.h5`.
        clip: string. The CLIP that GALIP was trained on: a keras-hub preset, a preset
            folder, or a file of OpenAI's weights (`ViT-B-32.pt`) or of open_clip's.
        vocabulary: string. OpenAI's `bpe_simple_vocab_16e6.txt.gz`, where the CLIP
            comes from a file of weights. Defaults to the tokenizer of keras-hub's
            `clip_vit_base_patch32`.
        half: bool. Whether to store the weights in half precision. They are computed
            with in float32 as ever.

    Returns:
        The model written: a `GALIPTextToImage` or a `CLIPBackbone`.

    Raises:
        ValueError: where the file is something else; the line says what was found.
        FileExistsError: where `out` exists.
    """
    if os.path.exists(out):
        raise FileExistsError(f"{out} exists already. Choose another --out.")
    state = _clip_state(read_state(checkpoint, lazy=True))
    if _is_clip(state):
        backbone = clip_from_state(state)
        tokenizer = _clip_tokenizer(backbone, vocabulary)
        with write_folder(Path(out)) as folder:
            backbone.save_to_preset(str(folder))
            tokenizer.save_to_preset(str(folder))
            if half:
                halve(folder)
        return backbone
    networks = _networks(state, checkpoint)
    backbone, tokenizer = _load_any_clip(clip, vocabulary)
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


def _origin(checkpoint, out, clip, state):
    epoch = state.get("epoch")
    return {
        "title": os.path.basename(os.path.abspath(out)),
        "made": f"`{os.path.basename(checkpoint)}` of GALIP's authors"
        f"{f', epoch {epoch}' if isinstance(epoch, int) else ''}, converted by "
        f"galip-keras {__version__}. The file's SHA-256 is {_digest(checkpoint)}.",
        "data": "See the authors' page of this checkpoint, "
        "https://github.com/tobran/GALIP: the file does not tell.",
        "clip": f"`{os.path.basename(clip)}`, its vision transformer from the file",
        "figures": {},
    }


def _digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _clip_state(state):
    """Weights of CLIP by OpenAI's names, of whoever's file; all else as it is."""
    if not isinstance(state, dict):
        return {}
    found = state.get("state_dict", state)
    found = _without_module(found) if isinstance(found, dict) else {}
    # open_clip's text towers of their own.
    found = {name.removeprefix("text."): value for name, value in found.items()}
    return found if _is_clip(found) else state


def _is_clip(state):
    return "visual.conv1.weight" in state


def _networks(state, path):
    networks = state.get("model", state)
    if not isinstance(networks, dict) or "netG" not in networks:
        found = ", ".join(map(str, list(networks)[:5])) or "nothing by name"
        raise ValueError(
            f"{path} is no checkpoint of GALIP (model/netG) or CLIP "
            f"(visual.conv1.weight): it holds {found}."
        )
    return dict(networks)


def _load_any_clip(source, vocabulary):
    if not os.path.isfile(source):
        return load_clip(source)
    state = _clip_state(read_state(source, lazy=True))
    if not _is_clip(state):
        raise ValueError(f"{source} holds no weights of CLIP by OpenAI's names.")
    backbone = clip_from_state(state)
    return backbone, _clip_tokenizer(backbone, vocabulary)


def _clip_tokenizer(backbone, vocabulary):
    if vocabulary is not None:
        return read_vocabulary(vocabulary, backbone.text_encoder.vocabulary_size)
    try:
        # All of OpenAI's CLIPs share one vocabulary.
        return keras_hub.models.CLIPTokenizer.from_preset("clip_vit_base_patch32")
    except Exception as error:
        raise ValueError(
            "A file of CLIP weights has no vocabulary, and keras-hub's could not be "
            "downloaded. Give OpenAI's bpe_simple_vocab_16e6.txt.gz with --vocabulary."
        ) from error


def _without_module(state):
    return {name.removeprefix("module."): value for name, value in state.items()}


def _check_empty(tensors):
    if tensors.tensors:
        names = sorted(tensors.tensors)
        raise ValueError(
            f"The checkpoint holds {len(names)} tensors that the model has no place "
            f"for: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}."
        )
