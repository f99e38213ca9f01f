"""Model cards, and uploads to hubs that are folders here."""

import pathlib
import shutil

import huggingface_hub
import numpy as np
import pytest
import tiny

from galip_keras.presets import card
from galip_keras.presets import push as sharing
from galip_keras.presets.fine_tuning import own_settings
from galip_keras.presets.loading import load_model
from galip_keras.presets.sizes import describe

# About files and names, not about tensors.
pytestmark = pytest.mark.backend("tensorflow")

ORIGIN = {
    "title": "tiny",
    "made": "Made by a test.",
    "data": "None.",
    "clip": "random weights",
    "figures": {"cmmd": 0.123456},
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model = tiny.text_to_image()
    model.save_to_preset(str(folder))
    card.write(folder, describe(model), ORIGIN)
    (folder / "training.json").write_text(
        '{"generator_lr": 1e-3, "discriminator_lr": 1e-3, "similarity_weight": 1,'
        ' "penalty_weight": 1, "range_weight": 1}'
    )
    return folder


def test_a_card_answers_a_stranger_s_questions(preset):
    text = card.read(preset)
    header, front, body = text.split("---\n", 2)
    assert header == ""
    assert "pipeline_tag: text-to-image" in front
    for words in (
        "Made by a test.", "images of 32x32 pixels", "random weights, 2\nblocks",
        "| cmmd | 0.1235 |", "## Intended use", "## Licence",
    ):  # fmt: skip
        assert words.replace("\n", " ") in " ".join(body.split())
    assert card.read_origin(preset) == ORIGIN


def test_what_its_owner_wrote_is_kept(preset, tmp_path):
    facts = describe(load_model(str(preset)))
    card.write(tmp_path, facts, ORIGIN)
    path = tmp_path / card.CARD
    path.write_text(path.read_text().replace("Not stated yet", "CC0: yours"))
    card.write(tmp_path, facts, {**ORIGIN, "made": "Made anew."}, earlier=tmp_path)
    text = path.read_text()
    assert "Made anew." in text
    assert "CC0: yours" in text
    assert text.count(card.OWN) == 1


@pytest.mark.parametrize(
    "address", ["hf://maria/birds", "kaggle://maria/galip/keras/birds"]
)
def test_what_is_pushed_comes_back(galip, hubs, preset, address):
    before = {path.name: path.read_bytes() for path in preset.rglob("*.*")}
    code, output, errors = galip("push", preset, address)
    assert (code, output, errors) == (0, f"{address}\n", "")
    assert {path.name: path.read_bytes() for path in preset.rglob("*.*")} == before
    there = hubs(address.partition("://")[2])
    text = (there / card.CARD).read_text()
    assert "Made by a test." in text
    assert f'from_preset("{address}")' in text
    model, ours = load_model(address), load_model(str(preset))
    np.testing.assert_array_equal(
        model.generate("an owl", seed=0), ours.generate("an owl", seed=0)
    )
    # Our own files are uploaded, too: for fine-tuning and for `galip info`.
    assert own_settings(None, address)["generator_lr"] == 1e-3
    code, output, errors = galip("info", address)
    assert (code, errors) == (0, "")
    assert "Made by a test." in output


def test_a_run_is_pushed_by_its_preset(hubs, preset, tmp_path):
    shutil.copytree(preset, tmp_path / "run" / "preset")
    assert sharing.push(tmp_path / "run", "hf://birds") == "hf://birds"
    assert (hubs("birds") / "config.json").is_file()


@pytest.mark.parametrize(
    ("source", "address", "words"),
    [
        (None, "birds", "no address of a hub"),
        (None, "https://huggingface.co/maria/birds", "no address of a hub"),
        (None, "kaggle://maria/birds", "no address of a hub"),
        ("nowhere", "hf://maria/birds", "unknown model 'nowhere'"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(galip, hubs, preset, source, address, words):
    code, output, errors = galip("push", source or preset, address)
    assert (code, output) == (1, "")
    assert errors.count("\n") == 1
    assert words in errors


def test_the_hubs_take_the_arguments_of_the_libraries(hubs):
    assert huggingface_hub.snapshot_download("birds") == str(hubs("birds"))
    with pytest.raises(TypeError, match="missing a required argument: 'repo_id'"):
        huggingface_hub.snapshot_download(name="birds")


def test_a_hub_that_refuses_is_one_line(galip, hubs, preset, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    code, output, errors = galip("push", preset, "hf://maria/birds")
    assert (code, output, errors.count("\n")) == (1, "", 1)
    assert "did not take" in errors
    code, output, errors = galip("info", "hf://maria/birds")
    assert (code, output, errors.count("\n")) == (1, "", 1)
    assert "could not be downloaded (ConnectionError: no network at all)" in errors
    assert pathlib.Path(preset, card.CARD).is_file()
