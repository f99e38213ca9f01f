"""`galip sample`: its options, its images and their names."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from sampled import names, pixels, sample, told

import galip_keras
from galip_keras.sampling.latent import combine

# What does not depend on the backend.
once = pytest.mark.backend("tensorflow")

SHEET = pathlib.Path(__file__).parents[2] / "examples" / "toybirds" / "a-red-bird.png"

pytestmark = [pytest.mark.every_backend, pytest.mark.usefixtures("loaded_once")]


@pytest.mark.parametrize(
    "args",
    [
        [],
        [" "],
        ["an owl", "--plus", " "],
        ["an owl" * 999],
        ["an owl", "--seeds", "7-0"],
        ["an owl", "--seeds", "-1"],
        ["an owl", "--seeds", "0-999999999999"],
        ["an owl", "--seeds", "9" * 5000],
        ["an owl", "--seeds", 2**63],
        ["an owl", "--seeds", "0", "--num-images", "2"],
        ["an owl", "a barn", "--num-images", "600000"],
        ["an owl", "--truncation", "-1"],
        ["an owl", "--truncation", "nan"],
        ["an owl", "--shard", "0/2"],
        ["an owl", "--shard", "3/2"],
        ["an owl", "--shard", "1/0"],
        ["an owl", "--shard", "1/2/3"],
        ["an owl", "--shard", "half"],
        ["an owl", "--shard", "1/2", "--grid"],
        ["an owl", "--format", "gif"],
        ["an owl", "--batch-size", "0"],
        ["an owl", "--best-of", "0"],
        ["an owl", "--scorer", "clip"],
        ["an owl", "--best-of", "3", "--seeds", 2**63 // 3],
        ["--prompts-file", "/nowhere"],
    ],
)
@once
def test_wrong_usage(error, tmp_path, args):
    out = tmp_path / "out"
    assert error("sample", *args, "--model", "galip_tiny", "--out", out)[0] == 2
    assert not out.exists()


def test_sample(galip, preset, tmp_path):
    args = ["an owl", "Ein Käuzchen!", "--model", preset, "--seeds", "3,0-1"]
    output = sample(
        galip, *args, "--truncation", "0.5", "--out", tmp_path, "--grid", "--json"
    )
    *drawn, grid = json.loads(output)
    assert [(p["prompt"], p["seed"]) for p in drawn] == [
        (prompt, seed) for prompt in args[:2] for seed in (3, 0, 1)
    ]
    assert len({p["path"] for p in drawn}) == 6
    assert drawn[0]["path"] == str(tmp_path / "an-owl-0607af85f87d-truncation0-5-3.png")
    for image in drawn:
        path = image.pop("path")
        assert Image.open(path).text == {k: str(v) for k, v in image.items()}
        assert image["version"] == galip_keras.__version__
        assert image["model"] == preset
        assert image["truncation"] == 0.5
    assert Image.open(grid["path"]).text["prompts"] == str(args[:2])
    whole = np.asarray(Image.open(grid["path"]))
    assert whole.shape == (2 * 64, 3 * 64, 3)
    third = np.asarray(Image.open(tmp_path / "an-owl-0607af85f87d-truncation0-5-1.png"))
    np.testing.assert_array_equal(whole[:64, 128:], third)


def test_same_seed_same_image(galip, preset, tmp_path):
    many = sample(
        galip, "a tent", "an owl", "--model", preset, "--num-images", 5,
        "--out", tmp_path / "many",
    )  # fmt: skip
    one = sample(
        galip, "an owl", "--model", preset, "--seeds", 4, "--out", tmp_path / "one"
    )
    assert len(many.splitlines()) == 10
    assert one == f"{tmp_path / 'one' / 'an-owl-4.png'}\n"
    name = "an-owl-4.png"
    np.testing.assert_array_equal(
        *(np.asarray(Image.open(tmp_path / d / name)) for d in ("many", "one"))
    )
    others = [Image.open(path).tobytes() for path in many.splitlines()]
    assert len(set(others)) == 10


def test_any_prompt_has_a_safe_name_of_its_own(galip, preset, tmp_path):
    prompts = [
        "猫",
        "猫猫",
        "../../etc/passwd",
        "/",
        "a/b",
        "a b",
        "a-b",
        "A b",
        "x" * 999,
    ]
    file = tmp_path / "prompts.txt"
    file.write_text("\n\n".join(prompts) + "\na b\n", "utf-8")
    out = tmp_path / "out"
    output = sample(galip, "--prompts-file", file, "--model", preset, "--out", out)
    paths = output.splitlines()
    assert len(set(paths)) == len(prompts)
    assert sorted(paths) == sorted(str(path) for path in out.iterdir())
    assert [Image.open(path).text["prompt"] for path in paths] == prompts


def test_toybirds_and_a_sheet_are_the_defaults(galip, tmp_path):
    out = tmp_path / "out"
    code, output, errors = galip("sample", "a red bird", "--out", out)
    assert (code, errors) == (0, "")
    assert output == f"{out / 'a-red-bird.png'}\n"
    sheet = Image.open(out / "a-red-bird.png")
    assert sheet.size == (4 * 64, 4 * 64)
    assert sheet.text["model"] == "toybirds"
    assert sheet.text["seeds"] == str(list(range(16)))
    sample(galip, "a red bird", "--seeds", "0,15", "--out", out)
    for seed, corner in ((0, (0, 0)), (15, (192, 192))):
        box = (*corner, *(x + 64 for x in corner))
        alone = Image.open(out / f"a-red-bird-{seed}.png")
        np.testing.assert_array_equal(sheet.crop(box), alone)
    # The one in the README. Rounding differs between backends and machines.
    root = pathlib.Path(__file__).parents[2]
    shown = Image.open(root / "examples" / "toybirds" / "a-red-bird.png")
    difference = np.asarray(shown, "float32") - np.asarray(sheet, "float32")
    assert np.abs(difference).mean() < 1


def test_words_that_toybirds_does_not_know(galip, tmp_path):
    args = ["a red bird and an Astronaut 猫", "--seeds", 0, "--out", tmp_path]
    args += ["--plus", "red zeppelin", "--minus", "blue submarine"]
    code, output, errors = galip("sample", *args)
    assert code == 0
    assert Image.open(output.strip()).size == (64, 64)
    assert errors.count("\n") == 1
    assert "'astronaut', '猫', 'zeppelin', 'submarine'" in errors
    assert "'red'" not in errors
    assert "--model galip_cc12m" in errors


@once
def test_sheets_are_named_neither_like_grids_nor_like_images(galip, preset, tmp_path):
    args = "grid", "an owl 3", "--model", preset, "--out", tmp_path, "--grid"
    output = sample(galip, *args)
    assert sorted(output.splitlines()) == sorted(map(str, tmp_path.iterdir()))
    sample(galip, "an owl", "--seeds", 3, "--model", preset, "--out", tmp_path)
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize(
    ("file_format", "ending"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")]
)
@once
def test_every_format_carries_the_facts(
    galip, preset, network, tmp_path, file_format, ending
):
    prompt = "Ein\0Käuzchen 猫 \U0001f989"
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": prompt, "seed": 3}))
    args = "--prompts-file", tmp_path / "a.jsonl", "--model", preset, "--json"
    out = tmp_path / "out"
    output = sample(galip, *args, "--out", out, "--format", file_format)
    (facts,) = json.loads(output)
    path = pathlib.Path(facts.pop("path"))
    assert names(out) == [path.name]
    assert path.suffix == ending
    image = Image.open(path)
    assert image.format == file_format.upper()
    assert told(path) == facts
    assert (facts["prompt"], facts["seed"], facts["model"]) == (prompt, 3, preset)
    expected = network.generate([prompt], seed=3)[0].astype(int)
    error = np.abs(np.asarray(image.convert("RGB")) - expected).mean()
    assert error < (20 if file_format != "png" else 1e-9)
    code, _, errors = galip(
        "sample", *args, "--out", out, "--format", file_format, "--resume"
    )
    assert (code, errors) == (0, "1 of 1 files were there.\n")


def test_sums_of_prompts(galip, preset, network, tmp_path):
    args = ["a bird", "--model", preset, "--seeds", 3, "--json", "--out", tmp_path]
    change = ["--plus", "red", "--plus", "old", "--minus", "blue"]
    (plain,) = json.loads(sample(galip, *args))
    (changed,) = json.loads(sample(galip, *args, *change, "--truncation", 0.5))
    (less,) = json.loads(sample(galip, *args, "--minus", "blue", "--format", "webp"))
    texts = combine(network, ["a bird"], ["red", "old"], ["blue"])
    noise = np.asarray(galip_keras.noise([3], network.backbone.generator.latent_dim))
    expected = network.decode(noise * np.float32(0.5), texts)[0]
    np.testing.assert_array_equal(pixels(changed["path"]), expected)
    assert (changed["plus"], changed["minus"]) == (["red", "old"], ["blue"])
    assert "plus" not in plain
    assert "plus" not in less
    assert told(less["path"])["minus"] == ["blue"]
    found = [pathlib.Path(x["path"]).stem for x in (plain, changed, less)]
    assert found[0] == "a-bird-3"
    assert len(set(found)) == 3
    assert all(name.startswith("a-bird-") for name in found)


@once
@pytest.mark.parametrize(
    "command",
    [
        ["sample", "a bird"],
        ["interpolate", "a bird", "a fish"],
        ["mix", "a bird", "a fish"],
        ["invert", SHEET],
    ],
    ids=lambda command: command[0],
)
def test_a_model_that_is_not_there_leaves_no_folder(galip, tmp_path, command):
    code, output, errors = galip(
        *command, "--model", tmp_path / "none", "--out", tmp_path / "out"
    )
    assert (code, output) == (1, "")
    assert "unknown model" in errors
    assert list(tmp_path.iterdir()) == []
