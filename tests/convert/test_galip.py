"""Conversion of files with exactly the authors' layout, and of malicious files."""

import gzip
import hashlib
import os
import pickle
import zipfile

import extras
import numpy as np
import pytest
import tokenizers
from keras.ops import convert_to_numpy

from galip_keras import GALIPTextToImage
from galip_keras.convert import galip as convert
from galip_keras.convert import pytorch
from galip_keras.convert.clip import read_clip, read_vocabulary
from galip_keras.models.clip import load_clip
from galip_keras.models.text_to_image import build
from galip_keras.presets import card, precision

torch = extras.need("torch", "torch")
torchscript = extras.need("torch", "torchscript")
authors = extras.need("torch", "authors")

pytestmark = [pytest.mark.every_backend, pytest.mark.extra("torch", "torch")]


@pytest.fixture(scope="module")
def clip_state():
    return authors.state(authors.clip_shapes(), 0)


@pytest.fixture(scope="module")
def checkpoint(clip_state):
    return authors.checkpoint(clip_state)


@pytest.fixture(scope="module")
def files(tmp_path_factory, clip_state, checkpoint):
    folder = tmp_path_factory.mktemp("files")
    authors.write(folder, checkpoint, clip_state)
    return folder


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "preset"
    model = convert.convert(
        str(files / "pre_cc12m.pth"),
        str(out),
        clip=str(files / "ViT-B-32.pt"),
        vocabulary=str(files / "bpe_simple_vocab_16e6.txt.gz"),
    )
    return model, out


def test_sizes_are_read_off_the_tensors(converted):
    generator = converted[0].backbone.generator
    assert generator.image_size == authors.GRID * authors.PATCH
    assert generator.latent_dim == authors.LATENT
    assert generator.base_channels == authors.BASE
    assert generator.bridge_channels == authors.CODE
    assert generator.prompt_layers == tuple(range(1, 9))
    assert generator.clip.embedding_dim == authors.EMBEDDING


def test_the_preset_makes_the_same_images(converted):
    model, out = converted
    loaded = GALIPTextToImage.from_preset(str(out))
    assert loaded.preprocessor.tokenizer.vocabulary_size() == authors.VOCABULARY
    np.testing.assert_array_equal(
        loaded.generate("the owl", seed=1), model.generate("the owl", seed=1)
    )


def test_the_discriminator_is_kept(converted, checkpoint):
    model, out = converted
    discriminator = convert.discriminator_from_state(
        pytorch.to_numpy(checkpoint["model"]["netD"]),
        pytorch.to_numpy(checkpoint["model"]["netC"]),
        model.backbone.clip,
    )
    kernel = convert_to_numpy(discriminator.head_conv_2.kernel)
    expected = checkpoint["model"]["netC"]["joint_conv.2.weight"].numpy()
    np.testing.assert_array_equal(kernel[:, :, :, 0].transpose(2, 0, 1), expected[0])
    assert (out / "discriminator.weights.h5").stat().st_size > 0


def test_half_precision_and_generator_alone(files, clip_state, checkpoint, tmp_path):
    generator = {
        k.removeprefix("module."): v.half()
        for k, v in checkpoint["model"]["netG"].items()
    }
    torch.save({"model": {"netG": generator}}, tmp_path / "half.pth")
    clip = convert.clip_from_state(pytorch.to_numpy(clip_state))
    half = pytorch.read_state(str(tmp_path / "half.pth"))["model"]["netG"]
    model = convert.generator_from_state(half, clip)
    expected = generator["to_rgb.1.bias"].float().numpy()
    np.testing.assert_array_equal(convert_to_numpy(model.to_rgb.bias), expected)


def test_a_clip_becomes_a_clip_preset(files, tmp_path):
    out = tmp_path / "clip"
    vocabulary = str(files / "bpe_simple_vocab_16e6.txt.gz")
    convert.convert(str(files / "ViT-B-32.pt"), str(out), vocabulary=vocabulary)
    backbone, tokenizer = load_clip(str(out))
    assert backbone.projection_dim == authors.EMBEDDING
    assert list(map(int, tokenizer("the"))) == [513]
    # `--clip FOLDER` accepts it.
    model = build("galip_vit_base_patch32", clip=str(out))
    assert model.backbone.generator.image_size == authors.GRID * authors.PATCH
    size = authors.GRID * authors.PATCH
    assert model.generate("the owl", seed=0).shape == (size, size, 3)


def test_every_tensor_is_used_once(checkpoint, clip_state):
    clip = convert.clip_from_state(pytorch.to_numpy(clip_state))
    networks = pytorch.to_numpy(checkpoint["model"])
    missing = dict(networks["netG"])
    del missing["module.GBlocks.1.c2.bias"]
    with pytest.raises(ValueError, match=r"no tensor 'GBlocks\.1\.c2\.bias'"):
        convert.generator_from_state(missing, clip)
    with pytest.raises(ValueError, match=r"no place for: extra\.weight\."):
        convert.generator_from_state({**networks["netG"], "extra.weight": 0}, clip)
    wrong = {**networks["netG"], "module.to_rgb.1.bias": np.zeros(4)}
    with pytest.raises(ValueError, match=r"has the shape \(4,\); \(3,\) was expected"):
        convert.generator_from_state(wrong, clip)


def test_another_clip_is_refused(checkpoint):
    other = authors.state(authors.clip_shapes(), 9)
    other = convert.clip_from_state(pytorch.to_numpy(other))
    with pytest.raises(ValueError, match="another CLIP"):
        convert.generator_from_state(
            pytorch.to_numpy(checkpoint["model"]["netG"]), other
        )


def clip_of(path):
    return convert.clip_from_state(read_clip(str(path)))


def assert_same_clip(ours, clip_state):
    expected = convert.clip_from_state(pytorch.to_numpy(clip_state))
    for weight, other in zip(ours.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(convert_to_numpy(weight), convert_to_numpy(other))


def test_openai_s_archive_is_read(clip_state, tmp_path):
    archive = {
        **clip_state,
        "input_resolution": torch.tensor(authors.GRID * authors.PATCH),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(authors.VOCABULARY),
    }
    torchscript.save(archive, tmp_path / "clip.pt")
    assert_same_clip(clip_of(tmp_path / "clip.pt"), clip_state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_archive_in_half_precision_is_read(clip_state, tmp_path, dtype):
    half = {name: value.to(dtype) for name, value in clip_state.items()}
    torchscript.save(half, tmp_path / "clip.pt")
    rounded = {name: value.float() for name, value in half.items()}
    assert_same_clip(clip_of(tmp_path / "clip.pt"), rounded)


@pytest.mark.parametrize("layout", ["plain", "training", "custom text"])
def test_open_clip_s_state_dicts_are_read(clip_state, tmp_path, layout):
    state = clip_state
    if layout == "training":
        state = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    if layout == "custom text":
        state = {
            k if k.startswith("visual.") or k == "logit_scale" else f"text.{k}": v
            for k, v in state.items()
        }
    torch.save(state, tmp_path / "clip.pt")
    assert_same_clip(clip_of(tmp_path / "clip.pt"), clip_state)


def test_views_and_scalars_are_read_as_pytorch_does(tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    state = {
        "part": base[3:9],
        "turned": base.reshape(4, 6).T,
        "repeated": base[:1].expand(3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "numbers": [torch.tensor([1, 2]), {"flag": torch.tensor([True, False])}],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": (1, "two", 3.0, None),
    }
    torch.save(state, tmp_path / "state.pth")
    found = pytorch.read_state(str(tmp_path / "state.pth"))
    for name in ("part", "turned", "repeated", "scalar", "empty", "parameter"):
        expected = state[name].detach().numpy()
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)
    assert found["numbers"][0].tolist() == [1, 2]
    assert found["numbers"][1]["flag"].tolist() == [True, False]
    assert found["plain"] == [1, "two", 3.0, None]


def test_half_precision_is_stored(files, converted, tmp_path):
    out = tmp_path / "half"
    convert.convert(
        str(files / "pre_cc12m.pth"), str(out), str(files / "ViT-B-32.pt"),
        str(files / "bpe_simple_vocab_16e6.txt.gz"), half=True,
    )  # fmt: skip
    whole = (converted[1] / "model.weights.h5").stat().st_size
    assert (out / "model.weights.h5").stat().st_size < 0.6 * whole
    loaded = GALIPTextToImage.from_preset(str(out))
    for ours, theirs in zip(loaded.weights, converted[0].weights, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(
            convert_to_numpy(ours), convert_to_numpy(theirs), rtol=1e-3, atol=1e-6
        )


def test_weights_beyond_half_precision_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file["kernel"] = np.full(3, 1e5, "float32")
    with pytest.raises(ValueError, match="kernel is too large for half precision"):
        precision.halve(tmp_path)


def test_the_card_names_the_origin_of_the_weights(files, converted):
    _, out = converted
    text = card.read(out)
    assert text.startswith("---\nlibrary_name: keras-hub\n")
    assert "# preset\n" in text
    digest = hashlib.sha256((files / "pre_cc12m.pth").read_bytes()).hexdigest()
    assert "`pre_cc12m.pth` of GALIP's authors, epoch 3, converted" in text
    assert digest in text
    assert str(files) not in text
    assert "## Intended use" in text
    assert "## Licence" in text
    assert card.read_origin(out)["clip"].startswith("`ViT-B-32.pt`")


class Payload:
    def __reduce__(self):
        return os.system, ("touch /tmp/galip_was_here",)


def write_code(path):
    torch.save({"model": {"netG": {}}, "code": Payload()}, path)


def write_old_code(path):
    path.write_bytes(pickle.dumps({"netG": Payload()}))


def write_code_in_torchscript(path):
    torchscript.save({"visual.conv1.weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            is_pickle = name.endswith("/data.pkl")
            archive.writestr(name, pickle.dumps(Payload()) if is_pickle else content)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"x": torch.zeros(3, 4)}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name, content in files.items():
        if name.endswith("/data.pkl"):
            # The shape, (3, 4), as (3, 200).
            assert content.count(b"K\x03K\x04") == 1
            files[name] = content.replace(b"K\x03K\x04", b"K\x03K\xc8")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="no file of PyTorch weights"):
        pytorch.read_state(str(path))


@pytest.mark.parametrize(
    "write", [write_code, write_old_code, write_code_in_torchscript]
)
def test_code_is_refused_and_not_run(write, tmp_path):
    marker = "/tmp/galip_was_here"
    assert not os.path.exists(marker)
    write(tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="more than tensors") as caught:
        convert.convert(str(tmp_path / "evil.pth"), str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not os.path.exists(marker)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"these are no weights"])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(ValueError, match="no file of PyTorch weights") as caught:
        convert.convert(str(tmp_path / "file.pth"), str(tmp_path / "out"))
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(files, tmp_path):
    whole = (files / "pre_cc12m.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.pth"):
        convert.convert(str(tmp_path / "cut.pth"), str(tmp_path / "out"))


def test_other_weights_are_refused_saying_what_they_hold(tmp_path):
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"it holds layer1\.weight"):
        convert.convert(str(tmp_path / "resnet.pth"), str(tmp_path / "out"))


def test_an_existing_folder_is_not_touched(files, tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        convert.convert(str(files / "pre_cc12m.pth"), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_vocabulary_is_openai_s_order(files):
    path = str(files / "bpe_simple_vocab_16e6.txt.gz")
    tokenizer = read_vocabulary(path, authors.VOCABULARY)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert [tokenizer.id_to_token(i) for i in (0, 1)] == alphabet[:2] == ["!", '"']
    assert tokenizer.id_to_token(512) == "th"
    assert tokenizer.id_to_token(authors.VOCABULARY - 1) == "<|endoftext|>"


def test_a_wrong_vocabulary_is_refused(tmp_path):
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"version\na b\n"))
    with pytest.raises(ValueError, match="does not hold the 48894"):
        read_vocabulary(str(tmp_path / "short.gz"))
    (tmp_path / "plain.gz").write_bytes(b"version\na b\n")
    with pytest.raises(ValueError, match="no gzip file"):
        read_vocabulary(str(tmp_path / "plain.gz"))
