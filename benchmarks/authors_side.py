"""The authors' code as one side of a comparison, from a checkout of their repository.

Their files are run as they are. Modules that they import but do not need for a model
or a training step are stood in for. OpenAI's CLIP is drawn at random, by the names and
in the order of axes that their code expects.
"""

import argparse
import collections
import contextlib
import copy
import importlib
import pathlib
import sys
import unittest.mock

import numpy as np
import sides
import torch
from torch import nn

# `models.inception`, which their evaluation needs, is not in every checkout.
_NOT_NEEDED = (
    "clip",
    "dateutil",
    "dateutil.tz",
    "easydict",
    "models.inception",
    "pandas",
    "scipy",
    "scipy.linalg",
    "torchvision",
    "torchvision.transforms",
    "torchvision.utils",
    "yaml",
)
# As in their cfg/birds.yml.
_SETTINGS = {
    "z_dim": sides.LATENT_DIM,
    "sim_w": 4.0,
    "current_epoch": 1,
    "max_epoch": 1,
    "multi_gpus": False,
    # Their scaler is for float16. Autocast here is around the step.
    "mixed_precision": False,
}


class Authors:
    """Their model and their training step, on PyTorch.

    Args:
        precision: string. A key of `sides.DTYPES`.
        checkout: string. The folder of their repository.
        weights: string. File to write the weights to, if there is none yet.
    """

    def __init__(self, precision, checkout, weights=None):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.is_half = precision == "bfloat16"
        self.theirs, self.training = _modules(checkout)
        theirs = self.theirs
        torch.manual_seed(0)
        self.clip = CLIP().eval()
        self.networks = {
            "netG": theirs.NetG(64, sides.LATENT_DIM, 512, 256, 3, False, self.clip),
            "netD": theirs.NetD(64, 256, 3, False),
            "netC": theirs.NetC(64, 512, False),
        }
        for network in self.networks.values():
            for parameter in network.parameters():
                # What starts at zero would hide half of the model from a comparison.
                if parameter.requires_grad and not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
        if weights and not pathlib.Path(weights).exists():
            _save({"clip": self.clip, **self.networks}, weights)

    def run(self, task, form, batch):
        """Return a function that does the task once, to the end."""
        torch.compiler.reset()
        arrays = {
            name: torch.from_numpy(x).to(self.device)
            for name, x in sides.inputs(batch).items()
        }
        arrays["images"] = arrays["images"].permute(0, 3, 1, 2).contiguous()
        if task == "step":
            return self._step(form, arrays)
        text_encoder = self._in_form(self.theirs.CLIP_TXT_ENCODER(self.clip), form)
        generator = self._in_form(self.networks["netG"], form)
        dtype = torch.bfloat16 if self.is_half else torch.float32
        text_encoder, generator = text_encoder.to(dtype), generator.to(dtype)
        noise, text = arrays["noise"].to(dtype), arrays["text"].to(dtype)

        def images(token_ids):
            return generator(noise, text_encoder(token_ids)[0], eval=True)

        def from_embeddings(noise, text):
            return generator(noise, text, eval=True)

        if form == "compiled":
            images, from_embeddings = map(torch.compile, (images, from_embeddings))

        @torch.inference_mode()
        def generate():
            pixels = (images(arrays["token_ids"]).float().clamp(-1, 1) + 1) * 127.5
            return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

        @torch.inference_mode()
        def decode():
            return float(from_embeddings(noise, text)[0, 0, 0, 0])

        return generate if task == "image" else decode

    def _in_form(self, network, form):
        layout = torch.contiguous_format if form == "eager" else torch.channels_last
        network = copy.deepcopy(network).to(self.device)
        return network.to(memory_format=layout)

    def _step(self, form, arrays):
        networks = {n: self._in_form(x, form) for n, x in self.networks.items()}
        clip = copy.deepcopy(self.clip).to(self.device)
        image_encoder = self.theirs.CLIP_IMG_ENCODER(clip)
        text_encoder = self.theirs.CLIP_TXT_ENCODER(clip)
        netG, netD, netC = networks["netG"], networks["netD"], networks["netC"]
        adam = {"betas": (0.0, 0.9)}
        critics = [*netD.parameters(), *netC.parameters()]
        optimizers = (
            torch.optim.Adam(netG.parameters(), lr=1e-4, **adam),
            torch.optim.Adam(critics, lr=4e-4, **adam),
        )
        if form == "compiled":
            # Compiled code cannot be differentiated twice, as the discriminator is.
            netG, image_encoder = map(torch.compile, (netG, image_encoder))
        batch = (arrays["images"], None, arrays["token_ids"], None)
        settings = argparse.Namespace(
            batch_size=len(arrays["images"]), device=self.device, **_SETTINGS
        )

        def step():
            autocast = torch.autocast(self.device, torch.bfloat16)
            with autocast if self.is_half else contextlib.nullcontext():
                self.training.train(
                    [[x.detach() if torch.is_tensor(x) else x for x in batch]],
                    netG,
                    netD,
                    netC,
                    text_encoder,
                    image_encoder,
                    *optimizers,
                    None,
                    None,
                    settings,
                )
            if self.device == "cuda":
                torch.cuda.synchronize()

        return step


def _modules(checkout):
    """Import their model and their training from the checkout."""
    for name in _NOT_NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = unittest.mock.MagicMock()
    sys.path.insert(0, str(pathlib.Path(checkout, "code")))
    sys.modules["models.inception"] = unittest.mock.MagicMock()
    model = importlib.import_module("models.GALIP")
    training = importlib.import_module("lib.modules")
    training.tqdm = unittest.mock.MagicMock()
    if not torch.cuda.is_available():
        # The gradient penalty moves a tensor to the GPU.
        torch.Tensor.cuda = lambda tensor: tensor
    return model, training


def _save(networks, path):
    states = {
        f"{network}.{name}": x.numpy()
        for network, module in networks.items()
        for name, x in module.state_dict().items()
    }
    np.savez(path, **states)


class CLIP(nn.Module):
    """OpenAI's ViT-B/32 of random weights, by its names."""

    def __init__(self, vocab_size=49408, width=512):
        super().__init__()
        self.visual = Vision()
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = _normal(sides.TOKENS, width)
        mask = torch.full((sides.TOKENS, sides.TOKENS), float("-inf")).triu(1)
        self.transformer = Transformer(width, 12, 8, mask)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = _normal(width, 512)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))


class Vision(nn.Module):
    def __init__(self, width=768, patch_size=32, grid_size=7):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = _normal(width)
        self.positional_embedding = _normal(grid_size**2 + 1, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, 12, 12)
        self.ln_post = nn.LayerNorm(width)
        self.proj = _normal(width, 512)


class Transformer(nn.Module):
    """Blocks on `(tokens, batch_size, width)`."""

    def __init__(self, width, layers, heads, mask=None):
        super().__init__()
        blocks = [Block(width, heads, mask) for _ in range(layers)]
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x):
        return self.resblocks(x)


class Block(nn.Module):
    def __init__(self, width, heads, mask):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", QuickGELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(collections.OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        y = self.ln_1(x)
        mask = self.mask if self.mask is None else self.mask.to(y.dtype)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def _normal(*shape):
    return nn.Parameter(0.02 * torch.randn(shape))
