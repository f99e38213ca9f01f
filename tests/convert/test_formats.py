"""Checkpoints in other files and by other names give the same weights."""

import json
import re

import extras
import numpy as np
import pytest

from galip_keras.convert import galip as convert
from galip_keras.convert import huggingface, pytorch
from galip_keras.convert.clip import read_vocabulary
from galip_keras.convert.tensors import without_wrappers

torch = extras.need("torch", "torch")
authors = extras.need("torch", "authors")

pytestmark = [pytest.mark.backend("tensorflow"), pytest.mark.extra("torch", "torch")]


def save_safetensors(state, path):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in state.items():
        content = np.ascontiguousarray(tensor).tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {
            "dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets,
        }  # fmt: skip
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def huggingface_state(state):
    """A CLIP by the names in `openai/clip-vit-base-patch32`."""
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


@pytest.fixture(scope="module")
def clip_state():
    return pytorch.to_numpy(authors.state(authors.clip_shapes(), 0))


def test_a_clip_of_hugging_face(clip_state, tmp_path):
    theirs = huggingface_state(clip_state)
    assert "vision_model.pre_layrnorm.weight" in theirs
    # The content decides, not the name.
    save_safetensors(theirs, tmp_path / "clip.bin")
    found = convert.clip_state(pytorch.read_state(tmp_path / "clip.bin", lazy=True))
    assert found.keys() == clip_state.keys()
    for name, value in clip_state.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value)
    convert.clip_from_state(found)
    del theirs["vision_model.encoder.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(ValueError, match="has no tensor"):
        convert.clip_from_state(convert.clip_state(theirs))


@pytest.mark.parametrize("damage", [slice(0, 60), slice(0, -1)])
def test_a_cut_file_is_refused(clip_state, tmp_path, damage):
    path = tmp_path / "a.safetensors"
    save_safetensors(clip_state, path)
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(ValueError, match="no sound safetensors file"):
        pytorch.read_state(path)


def test_wrappers_of_modules():
    names = "module._orig_mod.a.b", "_orig_mod.module.c", "d.module._orig_mod.e"
    assert list(without_wrappers(dict.fromkeys(names))) == ["a.b", "c", "d.e"]
    with pytest.raises(ValueError, match="two tensors 'a'"):
        without_wrappers({"a": 0, "module.a": 1})


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"module.fc_code.weight": 1}, False),
        ({"netG": {"fc_code.weight": 1}}, False),
        ({"model": {"netG": {"fc_code.weight": 1}}}, False),
        ({"model.netG.fc_code.weight": 1}, False),
        ({"netG_ema": {"fc_code.weight": 1, "n_averaged": 5}}, False),
        ({"model": {"netG": {"x": 0}, "netG_ema": {"fc_code.weight": 1}}}, True),
        ({"model": {"netG": {"x": 0}}, "netG_ema": {"fc_code.weight": 1}}, True),
    ],
)
def test_where_the_generator_is(capsys, state, said):
    generator = convert._networks(state, "a.pth")["netG"]
    assert without_wrappers(generator) == {"fc_code.weight": 1}
    assert ("netG_ema is used" in capsys.readouterr().err) == said


def write_vocabulary(folder):
    """Write Hugging Face's vocabulary files, and return the same from OpenAI's."""
    authors.write(folder, {}, {})
    path = str(folder / "bpe_simple_vocab_16e6.txt.gz")
    ours = read_vocabulary(path, authors.VOCABULARY)
    words, pairs = dict(ours.vocabulary), [x.split(" ") for x in ours.merges]
    model = {"model": {"vocab": words, "merges": pairs}}
    (folder / "tokenizer.json").write_text(json.dumps(model))
    (folder / "vocab.json").write_text(json.dumps(words))
    merges = "\n".join(["#version: 0.2", *map(" ".join, pairs), ""])
    (folder / "merges.txt").write_text(merges, "utf-8")
    return ours


def test_vocabularies_of_hugging_face(tmp_path):
    ours = write_vocabulary(tmp_path)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "."):
        found = read_vocabulary(str(tmp_path / name), authors.VOCABULARY)
        assert list(found("the owl")) == list(ours("the owl"))
    with pytest.raises(ValueError, match="does not hold the 9 words"):
        read_vocabulary(str(tmp_path / "tokenizer.json"), 9)


def test_everything_in_safetensors(clip_state, tmp_path):
    write_vocabulary(tmp_path)
    save_safetensors(huggingface_state(clip_state), tmp_path / "model.safetensors")
    tensors = authors.state(authors.clip_shapes(), 0)
    checkpoint = authors.checkpoint(tensors)
    networks = pytorch.to_numpy(checkpoint)
    flat = {
        f"{network}.{name}": value
        for network, state in networks["model"].items()
        for name, value in state.items()
    }
    save_safetensors(flat, tmp_path / "galip.pth")
    out = tmp_path / "out"
    model = convert.convert(str(tmp_path / "galip.pth"), str(out), clip=str(tmp_path))
    torch.save(checkpoint, tmp_path / "o.pth")
    torch.save(tensors, tmp_path / "clip.pt")
    expected = convert.convert(
        str(tmp_path / "o.pth"),
        str(tmp_path / "expected"),
        clip=str(tmp_path / "clip.pt"),
        vocabulary=str(tmp_path / "bpe_simple_vocab_16e6.txt.gz"),
    )
    np.testing.assert_array_equal(
        model.generate("the owl", seed=1), expected.generate("the owl", seed=1)
    )
    assert (out / "discriminator.weights.h5").is_file()
