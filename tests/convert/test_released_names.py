"""The authors' models by name, from small files of the real layouts."""

import io
import json
import pathlib
import shutil
import socket

import extras
import numpy as np
import pytest
from drawn import draw_circles
from marks import export_on_tensorflow

from galip_keras import GALIPTextToImage
from galip_keras.convert import galip as convert
from galip_keras.convert import released
from galip_keras.convert.pytorch import to_numpy
from galip_keras.downloads import licenses
from galip_keras.downloads.sources import MODELS, SOURCES
from galip_keras.metrics.scorer import Scorer
from galip_keras.models.architectures import preset_folder

torch = extras.need("torch", "torch")
authors = extras.need("torch", "authors")
hf_files = extras.need("torch", "hf_files")

# Files and weights do not depend on the backend.
pytestmark = [
    pytest.mark.backend("tensorflow"),
    pytest.mark.extra("torch", "torch"),
    pytest.mark.extra("weights", "gdown"),
]

CHECKPOINT = SOURCES["pre_coco.pth"].drive_id
HUB = "openai/clip-vit-base-patch32"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files as on the authors' page and the hubs, and the preset that they make."""
    folder = tmp_path_factory.mktemp("files")
    clip = authors.state(authors.clip_shapes(), 0)
    hf_files.write(folder, clip)
    authors.write(folder, authors.checkpoint(clip), clip)
    options = {
        "clip": str(folder / "ViT-B-32.pt"),
        "vocabulary": str(folder / "bpe_simple_vocab_16e6.txt.gz"),
    }
    convert.convert(str(folder / "pre_cc12m.pth"), str(folder / "preset"), **options)
    convert.convert(str(folder / "ViT-B-32.pt"), str(folder / "clip"), **options)
    return folder


@pytest.fixture
def full_web(web, files):
    """A web that has the checkpoint of COCO, and CLIP on Hugging Face."""
    web.files[CHECKPOINT] = (files / "pre_cc12m.pth").read_bytes()
    for name in ("model.safetensors", "vocab.json", "merges.txt"):
        web.files[f"{HUB}/{name}"] = (files / name).read_bytes()
    return web


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def images(model):
    return model.generate(["the owl"], seed=0)


@pytest.fixture(scope="module")
def expected(files):
    return images(GALIPTextToImage.from_preset(str(files / "preset")))


def test_a_model_by_its_name(full_web, home, galip, expected, tmp_path, request):
    sample = ["sample", "the owl", "--model", "galip_coco", "--seeds", "0", "--out"]
    code, output, errors = galip(*sample, tmp_path / "a")
    assert code == 0, errors
    first, *others = errors.splitlines()
    assert first.startswith("galip_coco, GALIP's authors' model of COCO")
    assert "1.3 GB to fetch: CC BY-NC-SA 4.0, no commercial use (https" in first
    assert "clip_vit_base_patch32 cannot be had from keras-hub" in errors
    assert "Converting pre_coco.pth: this happens once." in others
    (image,) = output.splitlines()
    assert sorted(x.name for x in (home / "presets").iterdir()) == [
        ".galip_coco.lock",
        "galip_coco",
    ]
    card = (home / "presets" / "galip_coco" / "README.md").read_text()
    assert "CC BY-NC-SA 4.0, no commercial use" in card
    assert "--model galip_coco\n" in card
    assert "epoch 3, converted by" in card
    assert "Not stated yet" not in card
    # From now on without a network.
    request.getfixturevalue("no_network")
    model = GALIPTextToImage.from_preset("galip_coco")
    np.testing.assert_array_equal(images(model), expected)
    assert GALIPTextToImage.from_preset("galip_coco", dtype="bfloat16").dtype_policy
    code, again, errors = galip(*sample, tmp_path / "b")
    assert (code, errors) == (0, "")
    paths = (pathlib.Path(x.strip()) for x in (image, again))
    assert len({path.read_bytes() for path in paths}) == 1


@pytest.fixture(autouse=True)
def kaggle(monkeypatch, tmp_path):
    """An empty cache of Kaggle's."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))


@pytest.mark.slow
def test_keras_hub_s_clip_comes_first(full_web, files, expected):
    for path in (files / "clip").rglob("*"):
        if path.is_file():
            name = f"kaggle/{path.relative_to(files / 'clip')}"
            full_web.files[name] = path.read_bytes()
    model = GALIPTextToImage.from_preset("galip_coco")
    np.testing.assert_array_equal(images(model), expected)
    assert {path.split("/")[1] for _, path, _ in full_web.asked} == {
        "drive.google.com",
        "drive.usercontent.google.com",
        "api.kaggle.com",
    }


def test_a_mirror_has_everything(full_web, files, monkeypatch):
    monkeypatch.setenv("GALIP_MIRROR", f"{full_web.address}/galip")
    found = dict(full_web.files)
    full_web.files.clear()
    names = {CHECKPOINT: "pre_coco.pth"}
    for name, content in found.items():
        mirrored = names.get(name, name.removeprefix("openai/"))
        full_web.files[f"galip/{mirrored}"] = content
    folder = released.fetch("galip_coco")
    weights = "model.weights.h5"
    assert (folder / weights).stat().st_size == (
        files / "preset" / weights
    ).stat().st_size
    assert {path.split("/")[1] for _, path, _ in full_web.asked} == {"galip"}


def test_without_a_clip_both_reasons_are_told(full_web, galip):
    del full_web.files[f"{HUB}/model.safetensors"]
    code, line = error_of(galip)
    assert code == 1
    assert "clip_vit_base_patch32 can be had neither from keras-hub (" in line
    assert " nor from Hugging Face: clip-vit-base-patch32/model.safetensors" in line
    assert "save it as" in line


def error_of(galip):
    code, output, errors = galip("sample", "an owl", "--model", "galip_coco")
    assert output == ""
    return code, errors.splitlines()[-1]


def test_the_older_format_of_hugging_face(full_web, files):
    del full_web.files[f"{HUB}/model.safetensors"]
    clip = torch.load(files / "ViT-B-32.pt", weights_only=True)
    state = {k: torch.as_tensor(v) for k, v in hf_files.state(to_numpy(clip)).items()}
    content = io.BytesIO()
    torch.save(state, content)
    full_web.files[f"{HUB}/pytorch_model.bin"] = content.getvalue()
    assert (released.fetch("galip_coco") / "config.json").is_file()


COMMANDS = {
    "interpolate": ["the owl", "an owl", "--frames", "3", "--out", "{out}"],
    "mix": ["the owl", "an owl", "--blocks", "1", "--out", "{out}"],
    "invert": ["{image}", "--steps", "1", "--out", "{out}"],
    "evaluate": ["--dataset", "folder:{images}", "--data-dir", "{out}"],
    "train": [
        *("--dataset", "folder:{images}", "--data-dir", "{out}", "--run", "{out}/r"),
        *("--steps", "1", "--batch-size", "2"),
    ],
    "export": ["--format", "saved_model", "--out", "{out}/e"],
}


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("command", [export_on_tensorflow(x, x) for x in COMMANDS])
def test_every_command_takes_the_name(home, files, galip, tmp_path, command):
    shutil.copytree(files / "preset", home / "presets" / "galip_coco")
    images = draw_circles(tmp_path / "images")
    places = {
        "out": tmp_path / "out",
        "images": images,
        "image": min(images.glob("*.png")),
    }
    words = [word.format(**places) for word in COMMANDS[command]]
    words += ["--init" if command == "train" else "--model", "galip_coco"]
    code, output, errors = galip(command, *words)
    assert code == 0, errors
    assert output
    assert "new one" not in errors


@pytest.mark.parametrize("prefix", ["openai/", "hf://openai/"])
def test_a_clip_of_the_hub_by_its_name(full_web, files, prefix):
    for name in ("model.safetensors", "vocab.json", "merges.txt"):
        there = f"openai/clip-vit-large-patch14/{name}"
        full_web.files[there] = full_web.files[f"{HUB}/{name}"]
    scorer = Scorer.of_preset(f"{prefix}clip-vit-large-patch14")
    assert scorer.embed(["the owl"]).shape == (1, authors.EMBEDDING)
    hosts = {path.split("/")[1] for _, path, _ in full_web.asked}
    assert hosts == {"huggingface.co", "cdn"}
    del full_web.files["openai/clip-vit-large-patch14/vocab.json"]
    Scorer.of_preset(f"{prefix}clip-vit-large-patch14")
    with pytest.raises(OSError, match=r"patch16/vocab.json could not be .*404"):
        Scorer.of_preset(f"{prefix}clip-vit-base-patch16")


@pytest.mark.parametrize("damage", ["other", "spliced", "text"])
def test_a_wrong_file_under_the_right_name(full_web, files, home, damage):
    content = full_web.files[CHECKPOINT]
    if damage == "other":
        other = authors.state(authors.clip_shapes(), 7)
        torch.save(authors.checkpoint(other), home.parent / "other.pth")
        content = (home.parent / "other.pth").read_bytes()
        words = "trained on another CLIP"
    elif damage == "spliced":
        middle = content.index(b"netG/") if b"netG/" in content else len(content) // 2
        content = content[:middle] + bytes(1000) + content[middle + 1000 :]
        words = "delete it to fetch it again"
    else:
        content, words = b"{}", "no file of PyTorch weights|is older than PyTorch"
    full_web.files[CHECKPOINT] = content
    with pytest.raises(ValueError, match=words) as caught:
        released.fetch("galip_coco")
    assert str(home / "downloads" / "pre_coco.pth") in str(caught.value)
    assert not (home / "presets" / "galip_coco").exists()


def test_a_folder_of_that_name_is_taken(web, files, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "galip_coco").symlink_to(files / "preset")
    assert preset_folder("galip_coco") == "galip_coco"
    assert web.asked == []


LICENSE = "CC BY-NC-SA 4.0, no commercial use (https://github.com/tobran/GALIP)"


def test_a_licence_is_accepted_first(full_web, galip, monkeypatch):
    monkeypatch.setenv(licenses.VARIABLE, "")
    code, line = error_of(galip)
    assert code == 1
    assert LICENSE in line
    assert line.endswith(
        "To accept this licence, add --yes or set GALIP_ACCEPT_LICENSES=1."
    )
    assert full_web.asked == []
    with pytest.raises(licenses.LicenseError, match="licence, set GALIP_ACCEPT_LI"):
        GALIPTextToImage.from_preset("galip_coco")
    assert full_web.asked == []
    full_web.files.clear()
    assert galip("sample", "an owl", "--model", "galip_coco", "--yes")[0] == 1
    assert full_web.asked != []


@pytest.mark.parametrize(
    ("answer", "accepts"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False)]
)
def test_a_licence_at_a_terminal(home, monkeypatch, capsys, answer, accepts):
    monkeypatch.setenv(licenses.VARIABLE, "")
    monkeypatch.setattr(licenses, "_is_terminal", lambda stream: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    if accepts:
        licenses.accept("galip_coco", LICENSE)
        # Once is enough.
        licenses.accept("pre_coco.pth", LICENSE)
    else:
        with pytest.raises(licenses.LicenseError, match="not accepted, and nothing"):
            licenses.accept("galip_coco", LICENSE)
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == f"galip_coco: {LICENSE}\nAccept this licence? [y/N] "


def test_info_lists_the_models(home, galip, no_network):
    code, output, _ = galip("info")
    assert code == 0
    assert MODELS.keys() <= set(output.split())
    words = " ".join(output.split())
    assert words.count(f"1.3 GB; {LICENSE}; fetched on first use") == len(MODELS)
    (home / "presets" / "galip_coco").mkdir(parents=True)
    (home / "presets" / "galip_coco" / "config.json").write_text("{}")
    facts = json.loads(galip("info", "--json")[1])["released"]
    assert {name: x["here"] for name, x in facts.items()} == {
        "galip_coco": True,
        "galip_cc12m": False,
    }
    assert "here         no" in galip("info", "galip_cc12m")[1]
    facts = json.loads(galip("info", "galip_cc12m", "--json")[1])
    assert facts["license"] == LICENSE
    assert facts["address"].startswith("https://drive.google.com/file/d/1VnONvNRju")
