"""Hugging Face's CLIP: other names of OpenAI's weights, and its vocabulary files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from galip_keras.downloads.sources import CLIP_WEIGHTS
from galip_keras.models.tokenizer import CLIPTokenizer

_NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
}
_PREFIXES = {
    "text_model.final_layer_norm.": "ln_final.",
    # The spelling is theirs.
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
}
_TOWERS = {"text": "transformer.", "vision": "visual.transformer."}
_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_PROJECTIONS = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
# Counters that older versions saved.
_POSITION_IDS = "embeddings.position_ids"
_ACTIVATION = "quick_gelu"
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")

_ATTENTION = re.compile(
    r"(text|vision)_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)"
)


def is_clip(state: Mapping[str, Any]) -> bool:
    """Whether a state dict holds a CLIP by Hugging Face's names."""
    return "vision_model.embeddings.patch_embedding.weight" in state


def openai_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Name the weights as OpenAI does. Unknown names stay as they are."""
    result: dict[str, Any] = {}
    for name, value in state.items():
        match = _ATTENTION.fullmatch(name)
        names = [re.sub("[qkv]_proj", f"{x}_proj", name) for x in "qkv"]
        if name.endswith(_POSITION_IDS):
            continue
        if match and all(x in state for x in names):
            # OpenAI stores query, key and value as one tensor.
            if match[3] == "q":
                whole = np.concatenate([np.asarray(state[x]) for x in names])
                place = f"{_TOWERS[match[1]]}resblocks.{match[2]}"
                result[f"{place}.attn.in_proj_{match[4]}"] = whole
        elif name in _PROJECTIONS:
            result[_PROJECTIONS[name]] = np.asarray(value).T
        else:
            result[_openai_name(name)] = value
    return result


def _openai_name(name: str) -> str:
    match = _LAYER.fullmatch(name)
    if match and match[3] in _PARTS:
        tower, layer, part, kind = match.groups()
        return f"{_TOWERS[tower]}resblocks.{layer}.{_PARTS[part]}.{kind}"
    for prefix, ours in _PREFIXES.items():
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    return _NAMES.get(name, name)


def weights_in(folder: str) -> str | None:
    """The file of weights in a folder of Hugging Face's, if it is one."""
    found = (Path(folder) / name for name in CLIP_WEIGHTS)
    return next((str(path) for path in found if path.is_file()), None)


def check_activation(weights: str) -> None:
    """Check that a CLIP has the activation that keras-hub computes, quick GELU.

    The weights of others have the same names and shapes, and only the `config.json`
    beside them tells.

    Args:
        weights: string. The file of weights.

    Raises:
        ValueError: if the CLIP has another activation.
    """
    path = Path(weights).parent / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        towers = [config.get(f"{tower}_config") or {} for tower in ("text", "vision")]
        found = {x.get("hidden_act", _ACTIVATION) for x in towers}
    except (OSError, ValueError, AttributeError):
        return  # There is none, or it is not Hugging Face's.
    if others := found - {_ACTIVATION}:
        raise ValueError(
            f"{path} says that this CLIP's activation is {others.pop()}. Only CLIPs "
            f"with {_ACTIVATION}, such as OpenAI's, can be read."
        )


def vocabulary_beside(weights: str) -> str | None:
    """Hugging Face's vocabulary in the folder of a file of weights, if it is there."""
    folder = Path(weights).parent
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return str(folder / "vocab.json")
    path = folder / "tokenizer.json"
    return str(path) if path.is_file() else None


def is_vocabulary(path: str) -> bool:
    """Whether a file, or a folder, is a vocabulary of Hugging Face's."""
    if Path(path).is_dir():
        return True
    with open(path, "rb") as file:
        start = file.read(9).lstrip()
    return start.startswith((b"{", b"#version"))


def read_vocabulary(path: str, vocabulary_size: int) -> CLIPTokenizer:
    """Read Hugging Face's `tokenizer.json`, or `vocab.json` and `merges.txt`.

    Raises:
        ValueError: if the files are something else, or of another CLIP.
    """
    if Path(path).is_dir():
        path = vocabulary_beside(str(Path(path) / "x")) or path
    try:
        words, merges = _words_and_merges(Path(path))
        is_whole = sorted(words.values()) == list(range(vocabulary_size))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no tokenizer.json, or no vocab.json with merges.txt beside it."
        ) from error
    if not is_whole:
        raise ValueError(
            f"{path} does not hold the {vocabulary_size} words of this CLIP."
        )
    return CLIPTokenizer(vocabulary=words, merges=merges)


def _words_and_merges(path: Path) -> tuple[dict[str, int], list[str]]:
    content = {} if path.suffix == ".txt" else json.loads(path.read_text("utf-8"))
    if "model" in content:
        model = content["model"]
        # Newer files store a merge as a pair.
        merges = [x if isinstance(x, str) else " ".join(x) for x in model["merges"]]
        return model["vocab"], merges
    beside = path.parent / "vocab.json"
    words = content or json.loads(beside.read_text("utf-8"))
    text = path if path.suffix == ".txt" else path.parent / "merges.txt"
    lines = text.read_text("utf-8").split("\n")
    return words, [x for x in lines if x.strip() and not x.startswith("#version")]
