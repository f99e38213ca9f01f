"""Checkpoints in other files and by other names give the same weights."""

import json
import sys

import extras
import keras
import numpy as np
import pytest

from galip_keras.convert import galip as convert
from galip_keras.convert import pytorch
from galip_keras.convert.clip import clip_state as clip_state_of
from galip_keras.convert.clip import load_any_clip, read_clip, read_vocabulary
from galip_keras.convert.tensors import without_wrappers
from galip_keras.models.clip import FrozenCLIP

torch = extras.need("torch", "torch")
authors = extras.need("torch", "authors")
hf_files = extras.need("torch", "hf_files")

pytestmark = [pytest.mark.backend("tensorflow"), pytest.mark.extra("torch", "torch")]


@pytest.fixture(scope="module")
def clip_state():
    return pytorch.to_numpy(authors.state(authors.clip_shapes(), 0))


def test_a_clip_of_hugging_face(clip_state, tmp_path):
    theirs = hf_files.state(clip_state)
    assert "vision_model.pre_layrnorm.weight" in theirs
    # The content decides, not the name.
    hf_files.save(theirs, tmp_path / "clip.bin")
    found = read_clip(tmp_path / "clip.bin")
    assert found.keys() == clip_state.keys()
    for name, value in clip_state.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value)
    convert.clip_from_state(found)
    del theirs["vision_model.encoder.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(ValueError, match="has no tensor"):
        convert.clip_from_state(clip_state_of(theirs))


@pytest.mark.extra("dev", "transformers")
def test_embeddings_are_those_of_transformers(tmp_path):
    transformers = extras.need("dev", "transformers")
    # Heads of 64 channels, as those of every published CLIP.
    sizes = {"num_attention_heads": 1, "hidden_size": 64, "intermediate_size": 256}
    text = {**sizes, "num_hidden_layers": 2, "eos_token_id": 49407}
    vision = {**sizes, "num_hidden_layers": 3, "image_size": 64, "patch_size": 16}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=24
    )
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = convert.clip_from_state(read_clip(str(tmp_path / "model.safetensors")))

    rng = np.random.default_rng(0)
    token_ids = np.full((2, 77), 49407)
    token_ids[:, :4] = [[49406, 320, 736, 3329], [49406, 518, 1929, 49407]]
    images = rng.standard_normal((2, 64, 64, 3), "float32")
    with torch.no_grad():
        expected = theirs(
            torch.tensor(token_ids), torch.tensor(images).permute(0, 3, 1, 2)
        )
        text_model = theirs.text_model(torch.tensor(token_ids))
        sentence = theirs.text_projection(text_model.pooler_output).numpy()
    np.testing.assert_allclose(
        FrozenCLIP(ours, feature_layers=(0, 1, 2)).embed_text(token_ids),
        sentence, atol=1e-5,
    )  # fmt: skip
    found = keras.ops.normalize(ours.get_vision_embeddings(images), axis=-1)
    np.testing.assert_allclose(found, expected.image_embeds.numpy(), atol=1e-5)


@pytest.mark.parametrize("tower", ["text_config", "vision_config"])
def test_another_activation_is_refused(tmp_path, tower):
    path = tmp_path / "model.safetensors"
    hf_files.save(authors.state(authors.clip_shapes(), 0), path)
    (tmp_path / "config.json").write_text(json.dumps({tower: {"hidden_act": "gelu"}}))
    with pytest.raises(ValueError, match="activation is gelu"):
        load_any_clip(str(path), None)


@pytest.mark.parametrize("damage", [slice(0, 60), slice(0, -1)])
def test_a_cut_file_is_refused(clip_state, tmp_path, damage):
    path = tmp_path / "a.safetensors"
    hf_files.save(clip_state, path)
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(ValueError, match="no sound safetensors file"):
        pytorch.read_state(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(20000), "is incomplete: the end of the archive"),
        (b"\x93" + bytes(20000), "is no file of PyTorch weights"),
        (b"", "is no file of PyTorch weights"),
    ],
)
def test_what_was_never_written_by_pytorch(monkeypatch, tmp_path, content, message):
    # PyTorch, if it is there, raises an OSError for some of them.
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
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


def test_vocabularies_of_hugging_face(tmp_path):
    ours = hf_files.write_vocabulary(tmp_path)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "."):
        found = read_vocabulary(str(tmp_path / name), authors.VOCABULARY)
        assert list(found("the owl")) == list(ours("the owl"))
    with pytest.raises(ValueError, match="does not hold the 9 words"):
        read_vocabulary(str(tmp_path / "tokenizer.json"), 9)


def test_everything_in_safetensors(clip_state, tmp_path):
    hf_files.write_vocabulary(tmp_path)
    hf_files.save(hf_files.state(clip_state), tmp_path / "model.safetensors")
    tensors = authors.state(authors.clip_shapes(), 0)
    checkpoint = authors.checkpoint(tensors)
    networks = pytorch.to_numpy(checkpoint)
    flat = {
        f"{network}.{name}": value
        for network, state in networks["model"].items()
        for name, value in state.items()
    }
    hf_files.save(flat, tmp_path / "galip.pth")
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
