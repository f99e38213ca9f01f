"""Files of CLIP as they are on the Hugging Face hub."""

import json
import re

import authors
import numpy as np

from galip_keras.convert import huggingface, pytorch
from galip_keras.convert.clip import read_vocabulary


def save(state, path):
    """Write a safetensors file."""
    header, contents, start = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in state.items():
        content = np.ascontiguousarray(tensor).tobytes()
        offsets = [start, start + len(content)]
        header[name] = {
            "dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets,
        }  # fmt: skip
        contents.append(content)
        start += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *contents]))


def state(state):
    """A CLIP of OpenAI's names by those in `openai/clip-vit-base-patch32`."""
    names = {ours: theirs for theirs, ours in huggingface._NAMES.items()}
    result = {}
    for name, value in state.items():
        tower = "vision" if name.startswith("visual.") else "text"
        layer = re.search(r"resblocks\.(\d+)\.(.+)\.(weight|bias)", name)
        joined = re.search(r"resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name)
        place = f"{tower}_model.encoder.layers."
        parts = {ours: theirs for theirs, ours in huggingface._PARTS.items()}
        if joined:
            for x, part in zip("qkv", np.split(value, 3)):
                end = f"{joined[1]}.self_attn.{x}_proj.{joined[2]}"
                result[place + end] = part
        elif layer:
            result[f"{place}{layer[1]}.{parts[layer[2]]}.{layer[3]}"] = value
        elif name in ("text_projection", "visual.proj"):
            name = "visual_projection" if tower == "vision" else "text_projection"
            result[f"{name}.weight"] = value.T
        else:
            for theirs, ours in huggingface._PREFIXES.items():
                name = name.replace(ours, theirs) if name.startswith(ours) else name
            result[names.get(name, name)] = value
    result["text_model.embeddings.position_ids"] = np.arange(77, dtype="float32")[None]
    return result


def write_vocabulary(folder, source=None, size=authors.VOCABULARY):
    """Write Hugging Face's vocabulary files, and return the same from OpenAI's."""
    if source is None:
        authors.write(folder, {}, {})
    source = source or folder / "bpe_simple_vocab_16e6.txt.gz"
    ours = read_vocabulary(str(source), size)
    words, pairs = dict(ours.vocabulary), [x.split(" ") for x in ours.merges]
    model = {"model": {"vocab": words, "merges": pairs}}
    (folder / "tokenizer.json").write_text(json.dumps(model))
    (folder / "vocab.json").write_text(json.dumps(words))
    merges = "\n".join(["#version: 0.2", *map(" ".join, pairs), ""])
    (folder / "merges.txt").write_text(merges, "utf-8")
    return ours


def write(folder, clip_state):
    """Write the weights and the vocabulary of a CLIP of OpenAI's names."""
    write_vocabulary(folder)
    save(state(pytorch.to_numpy(clip_state)), folder / "model.safetensors")
