"""Images that were asked for in another way are kept."""

import pathlib

import pytest
from PIL import Image
from sampled import names, sample, told

from galip_keras.sampling.image_files import read_facts

pytestmark = [
    pytest.mark.backend("tensorflow"),
    pytest.mark.usefixtures("loaded_once"),
]


@pytest.fixture(scope="module")
def other(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "other"
    network.save_to_preset(str(folder))
    return str(folder)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_other_settings_have_other_names(galip, preset, other, tmp_path, file_format):
    requests = (
        ["--model", preset],
        ["--model", preset, "--truncation", 0.5],
        ["--model", preset, "--truncation", 0.25],
        ["--model", preset, "--best-of", 2],
        ["--model", preset, "--minus", "red"],
        ["--model", other],
    )
    args = "an owl", "--seeds", 0, "--format", file_format, "--out", tmp_path
    paths = [sample(galip, *args, *request).strip() for request in requests]
    assert len(set(paths)) == len(requests) == len(names(tmp_path))
    assert pathlib.Path(paths[0]).stem == "an-owl-0"
    assert [told(x)["model"] for x in paths] == [preset] * 5 + [other]
    # Each is found again, and none for another.
    for path, request in zip(paths, requests):
        code, output, errors = galip("sample", *args, *request, "--resume")
        assert (code, output.strip()) == (0, path)
        assert errors == "1 of 1 files were there.\n"


def test_grids_of_other_requests(galip, preset, tmp_path):
    args = "--model", preset, "--seeds", 0, "--out", tmp_path, "--grid"
    for request in (["an owl"], ["a barn"], ["an owl", "--truncation", 0.5]):
        for _ in range(2):
            sample(galip, *request, *args)
    grids = [x for x in names(tmp_path) if x.startswith("grid")]
    assert len(grids) == 3
    assert read_facts(tmp_path / "grid.png")["prompts"] == ["an owl"]


@pytest.mark.parametrize(
    ("command", "requests"),
    [
        (
            ["interpolate", "an owl", "a barn", "--frames", 2],
            [[], ["--truncation", 0.5], ["--frames", 3], ["--loop"]],
        ),
        (
            ["interpolate", "an owl", "a barn", "--frames", 2, "--format", "gif"],
            [[], ["--truncation", 0.5], ["--fps", 5]],
        ),
        (["mix", "an owl", "a barn"], [[], ["--truncation", 0.5], ["--seeds", 7]]),
        (["invert", "IMAGE", "--steps", 0], [[], ["--seed", 3], ["--prompt", "x"]]),
    ],
)
def test_other_commands(galip, preset, other, tmp_path, command, requests):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    command = [tmp_path / "a.png" if x == "IMAGE" else x for x in command]
    paths = []
    for request in [*requests, ["--model", other]]:
        args = [*command, "--model", preset, *request, "--out", tmp_path / "out"]
        code, output, errors = galip(*args)
        assert code == 0, errors
        assert galip(*args)[1] == output
        paths += output.split()
    assert len(set(paths)) == len(paths) == len(names(tmp_path / "out"))


@pytest.mark.parametrize("prompt", ["-5 degrees, a red bird", "--a red bird"])
def test_a_prompt_with_a_dash(error, prompt):
    code, line = error("sample", prompt)
    assert code == 2
    assert "Put -- before" in line
    assert "Put --" not in error("sample", "an owl", "--truncaton", 1)[1]
