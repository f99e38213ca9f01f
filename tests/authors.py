"""Small checkpoints of random numbers in the authors' layout."""

import gzip
import itertools

import numpy as np
import torch

HIDDEN, GRID, PATCH, TEXT, EMBEDDING, VOCABULARY = 64, 7, 4, 64, 24, 520
LATENT, CODE, BASE = 10, 6, 2
LAYERS = 9


def transformer(width, layers):
    shapes = {}
    for i in range(layers):
        block = f"transformer.resblocks.{i}."
        shapes |= {
            block + "attn.in_proj_weight": (3 * width, width),
            block + "attn.in_proj_bias": (3 * width,),
            block + "attn.out_proj.weight": (width, width),
            block + "attn.out_proj.bias": (width,),
            block + "ln_1.weight": (width,),
            block + "ln_1.bias": (width,),
            block + "mlp.c_fc.weight": (4 * width, width),
            block + "mlp.c_fc.bias": (4 * width,),
            block + "mlp.c_proj.weight": (width, 4 * width),
            block + "mlp.c_proj.bias": (width,),
            block + "ln_2.weight": (width,),
            block + "ln_2.bias": (width,),
        }
    return shapes


def vit_shapes():
    return {
        "class_embedding": (HIDDEN,),
        "positional_embedding": (GRID**2 + 1, HIDDEN),
        "conv1.weight": (HIDDEN, 3, PATCH, PATCH),
        "ln_pre.weight": (HIDDEN,),
        "ln_pre.bias": (HIDDEN,),
        **transformer(HIDDEN, LAYERS),
    }


def clip_shapes():
    return {
        "positional_embedding": (77, TEXT),
        "text_projection": (TEXT, EMBEDDING),
        "logit_scale": (),
        **{f"visual.{k}": v for k, v in vit_shapes().items()},
        "visual.proj": (HIDDEN, EMBEDDING),
        "visual.ln_post.weight": (HIDDEN,),
        "visual.ln_post.bias": (HIDDEN,),
        **transformer(TEXT, 1),
        "token_embedding.weight": (VOCABULARY, TEXT),
        "ln_final.weight": (TEXT,),
        "ln_final.bias": (TEXT,),
    }


def fusion(prefix, channels):
    condition = LATENT + EMBEDDING
    shapes = {}
    for affine, kind in itertools.product("01", ("gamma", "beta")):
        place = f"{prefix}affine{affine}.fc_{kind}."
        shapes |= {
            place + "linear1.weight": (channels, condition),
            place + "linear1.bias": (channels,),
            place + "linear2.weight": (channels, channels),
            place + "linear2.bias": (channels,),
        }
    return shapes


def conv(name, out, into, kernel):
    return {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}


def generator_shapes():
    half = CODE // 2
    condition = LATENT + EMBEDDING
    shapes = {
        "fc_code.weight": (CODE * GRID**2, LATENT),
        "fc_code.bias": (CODE * GRID**2,),
    }
    for i in range(4):
        block = f"mapping.FBlocks.{i}."
        shapes |= {
            **conv(block + "conv1", half, CODE, 3),
            **fusion(block + "fuse1.", half),
            **conv(block + "conv2", CODE, half, 3),
            **fusion(block + "fuse2.", CODE),
        }
    shapes |= conv("mapping.conv_fuse", HIDDEN, CODE, 5)
    shapes |= {f"mapping.CLIP_ViT.{k}": v for k, v in vit_shapes().items()}
    # 28 pixels: blocks to 8, 16 and 28.
    channels = [8 * BASE, 4 * BASE, 2 * BASE, BASE]
    shapes |= conv("mapping.conv", channels[0], HIDDEN, 5)
    shapes |= {
        "mapping.fc_prompt.weight": (8 * HIDDEN, condition),
        "mapping.fc_prompt.bias": (8 * HIDDEN,),
    }
    for i, (into, out) in enumerate(itertools.pairwise(channels)):
        block = f"GBlocks.{i}."
        shapes |= {
            **conv(block + "c1", out, into, 3),
            **conv(block + "c2", out, out, 3),
            **fusion(block + "fuse1.", into),
            **fusion(block + "fuse2.", out),
            **conv(block + "c_sc", out, into, 1),
        }
    return shapes | conv("to_rgb.1", 3, BASE, 3)


def extractor_shapes(channels=16):
    shapes = {}
    for i in (0, 1):
        block = f"DBlocks.{i}."
        shapes |= {
            block + "gamma": (1,),
            block + "beta": (1,),
            block + "conv_r.0.weight": (HIDDEN, HIDDEN, 3, 3),
            block + "conv_r.2.weight": (HIDDEN, HIDDEN, 3, 3),
            **conv(block + "conv_s", HIDDEN, HIDDEN, 1),
        }
    return shapes | {
        "main.gamma": (1,),
        "main.conv_r.0.weight": (channels, HIDDEN, 3, 3),
        "main.conv_r.2.weight": (channels, channels, 3, 3),
        **conv("main.conv_s", channels, HIDDEN, 1),
    }


def head_shapes(channels=16):
    return {
        "joint_conv.0.weight": (8, channels + EMBEDDING, 4, 4),
        "joint_conv.2.weight": (1, 8, 4, 4),
    }


def state(shapes, seed):
    rng = np.random.default_rng(seed)
    return {
        name: torch.tensor(0.1 * rng.standard_normal(shape), dtype=torch.float32)
        for name, shape in shapes.items()
    }


def checkpoint(clip_state):
    """Make a checkpoint of GALIP on a CLIP as the authors save it."""
    generator = state(generator_shapes(), 1)
    for name in vit_shapes():
        generator["mapping.CLIP_ViT." + name] = clip_state["visual." + name]
    networks = {
        "netG": {f"module.{k}": v for k, v in generator.items()},
        "netD": state(extractor_shapes(), 2),
        "netC": state(head_shapes(), 3),
    }
    return {"model": networks, "optimizers": {"step": [1, 2.0]}, "epoch": 3}


def write(folder, checkpoint, clip_state):
    """Write the three files for a conversion without internet access."""
    torch.save(checkpoint, folder / "pre_cc12m.pth")
    torch.save(clip_state, folder / "ViT-B-32.pt")
    merges = ["t h", "th e</w>", "o w", "ow l</w>", "a n", "a n</w>"]
    text = "\n".join(['"bpe_simple_vocab: version"', *merges, "unused pair", ""])
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
