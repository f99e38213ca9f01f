"""`galip sample`: what is asked for, what is made, and what is left of a killed run."""

import functools
import gc
import io
import json
import pathlib
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from keras.ops import convert_to_numpy
from PIL import Image

import galip_keras
from galip_keras import GALIPTextToImage
from galip_keras.metrics import clip_score
from galip_keras.metrics.evaluator import Evaluator
from galip_keras.presets import loading
from galip_keras.sampling.latent import combine
from galip_keras.sampling.requests import read_prompts

# What does not depend on the backend.
once = pytest.mark.backend("tensorflow")


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    """Every command compiles its model anew: not here, but in the killed process."""
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.lru_cache(loading.load_model)
        patch.setattr(loading, "load_model", cached)
        yield


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    GALIPTextToImage.from_preset("galip_tiny").save_to_preset(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def network(preset):
    return loading.load_model(preset)


@pytest.fixture
def error(galip):
    """Run `sample` in vain. Return its error, which is one line, and the code."""

    def run(*args):
        code, output, errors = galip("sample", *args)
        assert output == ""
        assert errors.startswith("Error: ")
        assert errors.count("\n") == 1
        return code, errors

    return run


@pytest.fixture
def calls(monkeypatch):
    """The numbers of pictures of the calls of `generate`."""
    counts = []
    generate = GALIPTextToImage.generate

    def counted(self, inputs, **kwargs):
        counts.append(len(inputs))
        return generate(self, inputs, **kwargs)

    monkeypatch.setattr(GALIPTextToImage, "generate", counted)
    return counts


def pixels(path):
    return np.asarray(Image.open(path))


def told(path):
    """The facts in a picture of any format."""
    return json.loads(Image.open(path).getexif()[0x010E])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
    assert error(*args, "--model", "galip_tiny", "--out", out)[0] == 2
    assert not out.exists()


def sample(galip, *args):
    code, output, errors = galip("sample", *args)
    assert code == 0, errors
    return output


def test_sample(galip, preset, tmp_path):
    args = ["an owl", "Ein Käuzchen!", "--model", preset, "--seeds", "3,0-1"]
    output = sample(
        galip, *args, "--truncation", "0.5", "--out", tmp_path, "--grid", "--json"
    )
    *pictures, grid = json.loads(output)
    assert [(p["prompt"], p["seed"]) for p in pictures] == [
        (prompt, seed) for prompt in args[:2] for seed in (3, 0, 1)
    ]
    assert len({p["path"] for p in pictures}) == 6
    assert pictures[0]["path"] == str(tmp_path / "an-owl-3.png")
    for picture in pictures:
        path = picture.pop("path")
        assert Image.open(path).text == {k: str(v) for k, v in picture.items()}
        assert picture["version"] == galip_keras.__version__
        assert picture["model"] == preset
        assert picture["truncation"] == 0.5
    assert Image.open(grid["path"]).text["prompts"] == str(args[:2])
    whole = np.asarray(Image.open(grid["path"]))
    assert whole.shape == (2 * 64, 3 * 64, 3)
    third = np.asarray(Image.open(tmp_path / "an-owl-1.png"))
    np.testing.assert_array_equal(whole[:64, 128:], third)


def test_same_seed_same_picture(galip, preset, tmp_path):
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


def test_toybirds_is_the_model_and_a_sheet_the_picture(galip, tmp_path):
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
    assert "galip convert" in errors


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.txt",
            "\ufeffan owl\r\n\r\n  a barn ",
            [("an owl", None), ("a barn", None)],
        ),
        ("a.txt", '"a, b"\n{}', [('"a, b"', None), ("{}", None)]),
        (
            "a.jsonl",
            '\ufeff{"prompt": " an owl ", "seed": 3}\r\n\r\n'
            '{"prompt": "a\\u0000barn", "seeds": [2, 0], "seed": null, "id": 1}\n'
            '{"prompt": "a\u2028tent", "seeds": "0-2,7"}\n{"prompt": "猫"}',
            [
                ("an owl", [3]),
                ("a\0barn", [2, 0]),
                ("a\u2028tent", [0, 1, 2, 7]),
                ("猫", None),
            ],
        ),
        (
            "a.CSV",
            '\ufeffid, prompt, seed, seeds\r\n1,"an owl, flying",3,\r\n\r\n'
            "2,a barn,,0-1\r\n3,a tent\r\n",
            [("an owl, flying", [3]), ("a barn", [0, 1]), ("a tent", None)],
        ),
        ("a.csv", f"prompt,seeds\nx,{2**63 - 1}", [("x", [2**63 - 1])]),
        ("a.csv", "", []),
        ("a.csv", "prompt\n", []),
        ("a.jsonl", "\n", []),
        ("a.txt", "", []),
    ],
)
@once
def test_prompts_files(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("ending", "rows", "message"),
    [
        ("jsonl", "{", "no JSON object"),
        ("jsonl", '"an owl"', "no JSON object"),
        ("jsonl", "[" * 100_000, "no JSON object"),
        ("jsonl", '{"prompt": "x", "seed": ' + "9" * 5000 + "}", "no JSON object"),
        ("jsonl", '{"Prompt": "x"}', "`prompt` is missing"),
        ("jsonl", '{"prompt": ["x", "y"]}', "`prompt` is missing, or no string"),
        ("jsonl", '{"prompt": 3}', "`prompt` is missing, or no string"),
        ("jsonl", '{"prompt": " "}', "blank"),
        ("jsonl", '{"prompt": "\\ud800"}', "not valid UTF-8"),
        ("jsonl", '{"prompt": "x", "seed": NaN}', "`seed` must be whole"),
        ("jsonl", '{"prompt": "x", "seed": 1.0}', "`seed` must be whole"),
        ("jsonl", '{"prompt": "x", "seed": true}', "`seed` must be whole"),
        ("jsonl", '{"prompt": "x", "seed": -1}', "`seed` must be whole"),
        ("jsonl", f'{{"prompt": "x", "seed": {2**63}}}', "`seed` must be whole"),
        ("jsonl", '{"prompt": "x", "seed": [1]}', "`seed` must be whole"),
        ("jsonl", '{"prompt": "x", "seed": "0-1"}', "`seed` is one"),
        ("jsonl", '{"prompt": "x", "seeds": []}', "`seeds` must be whole"),
        ("jsonl", '{"prompt": "x", "seeds": [1, null]}', "`seeds` must be whole"),
        ("jsonl", '{"prompt": "x", "seeds": {"a": 1}}', "`seeds` must be whole"),
        ("jsonl", '{"prompt": "x", "seeds": "7-0"}', "must ascend"),
        ("jsonl", '{"prompt": "x", "seed": 1, "seeds": [1]}', "exclude each other"),
        ("csv", ",1", "`prompt` is missing"),
        ("csv", "x,nan", "'nan' is not like"),
        ("csv", "x,1.0", "'1.0' is not like"),
        ("csv", f"x,{2**63}", "below 2**63"),
        ("csv", "x,0-1", "`seed` is one"),
        ("csv", "a bird, flying, red", "a value too many"),
        ("csv", '"an owl', "unexpected end of data"),
        ("csv", f"{'x' * 200_000},1", "larger than field limit"),
        ("txt", "x" * 9999, "more than 2000 characters"),
    ],
)
@once
def test_a_bad_row_is_told_by_its_line(error, tmp_path, ending, rows, message):
    first = {"jsonl": '{"prompt": "x"}', "csv": "prompt,seed", "txt": "x"}[ending]
    file, out = tmp_path / f"a.{ending}", tmp_path / "out"
    file.write_text(f"{first}\n{rows}\n", "utf-8")
    code, line = error("--prompts-file", file, "--model", "m", "--out", out)
    assert code == 2
    assert f"{file}, line 2: " in line
    assert message in line
    assert not out.exists()


@once
def test_bad_prompts_files(error, tmp_path):
    for name, content, message in (
        ("a.csv", b"text,seed\nx,1\n", "a.csv, line 1: there is no column `prompt`"),
        ("a.csv", b"", "there is no prompt"),
        ("a.jsonl", b"", "there is no prompt"),
        ("a.txt", b" \n", "there is no prompt"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("a.csv", b"prompt\n\xff", "UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        code, line = error("--prompts-file", tmp_path / name, "--model", "m")
        assert code == 2
        assert message in line
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "seed": 3}')
    args = "--prompts-file", tmp_path / "a.jsonl", "--model", "m"
    assert "seeds in a file" in error(*args, "--grid")[1]
    assert "has no 2 candidates" in error(
        "x", "--seeds", 2**62, *args, "--best-of", 2
    )[1]  # fmt: skip


@once
def test_own_seeds_make_pictures_and_the_others_sheets(galip, preset, tmp_path):
    file = tmp_path / "a.jsonl"
    rows = (
        {"prompt": "an owl", "seeds": [4, 1, 4]},
        {"prompt": "an owl", "seed": 1},
        {"prompt": "an owl"},
        {"prompt": "an owl"},
    )
    file.write_text("\n".join(map(json.dumps, rows)))
    args = "--prompts-file", file, "--model", preset, "--out", tmp_path / "out"
    output = sample(galip, *args, "--json")
    files = json.loads(output)
    assert [pathlib.Path(x["path"]).name for x in files] == [
        "an-owl-4.png", "an-owl-1.png", "an-owl.png",
    ]  # fmt: skip
    assert files[2]["seeds"] == list(range(16))
    output = sample(galip, *args, "--seeds", "2,1")
    assert [pathlib.Path(x).name for x in output.splitlines()] == [
        "an-owl-4.png", "an-owl-1.png", "an-owl-2.png",
    ]  # fmt: skip


@once
def test_prompts_of_standard_input(galip, preset, tmp_path, monkeypatch):
    lines = io.TextIOWrapper(io.BytesIO("\ufeffein Käuzchen\r\n".encode()))
    monkeypatch.setattr("sys.stdin", lines)
    args = "--prompts-file", "-", "--model", preset, "--seeds", 0, "--out", tmp_path
    (picture,) = json.loads(sample(galip, *args, "--json"))
    assert picture["prompt"] == "ein Käuzchen"


@once
def test_sheets_are_called_neither_as_grids_nor_as_pictures(galip, preset, tmp_path):
    args = "grid", "an owl 3", "--model", preset, "--out", tmp_path, "--grid"
    output = sample(galip, *args)
    assert sorted(output.splitlines()) == sorted(map(str, tmp_path.iterdir()))
    sample(galip, "an owl", "--seeds", 3, "--model", preset, "--out", tmp_path)
    assert len(names(tmp_path)) == 4


@once
def test_shards_share_the_files(galip, preset, tmp_path):
    args = "an owl", "a barn", "--model", preset, "--num-images", 2, "--out"
    whole = sample(galip, *args, tmp_path / "whole").splitlines()
    parts = [
        sample(galip, *args, tmp_path / "parts", "--shard", f"{i}/3").splitlines()
        for i in (1, 2, 3)
    ]
    assert list(map(len, parts)) == [2, 1, 1]
    assert parts[0] == [x.replace("whole", "parts") for x in whole[::3]]
    assert names(tmp_path / "parts") == names(tmp_path / "whole")
    for path in whole:
        other = path.replace("whole", "parts")
        assert pathlib.Path(other).read_bytes() == pathlib.Path(path).read_bytes()
    assert sample(galip, *args, tmp_path / "none", "--shard", "5/9") == ""
    output = sample(galip, *args, tmp_path / "none", "--shard", "5/9", "--json")
    assert json.loads(output) == []


@once
def test_many_pictures_of_little_memory(galip, preset, tmp_path, monkeypatch):
    out = tmp_path / "out"
    in_memory = []
    generate = GALIPTextToImage.generate

    def watched(self, *args, **kwargs):
        count = len(list(out.iterdir()))
        if count == 0:
            tracemalloc.start()
        if count in (20, 290):
            arrays = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
            )
            images = sum(isinstance(x, Image.Image) for x in gc.get_objects())
            in_memory.append((sum(x.size for x in arrays.traces), images))
        # All the pictures before are on disk.
        assert count == len(made)
        made.append(None)
        return generate(self, *args, **kwargs)

    made = []
    monkeypatch.setattr(GALIPTextToImage, "generate", watched)
    args = "an owl", "--model", preset, "--num-images", 300, "--out", out, "--json"
    try:
        code, output, errors = galip("sample", *args)
    finally:
        tracemalloc.stop()
    assert code == 0, errors
    assert len(json.loads(output)) == len(made) == 300
    (early, early_images), (late, late_images) = in_memory
    assert late - early < 5 * 64 * 64 * 3
    assert late_images <= early_images + 1
    assert "300/300" in errors
    assert "images/s" in errors


_KILLED = """
import os, signal, sys
from PIL import Image
from galip_cli.main import main

save, left = Image.Image.save, 4

def save_or_die(self, path, *args, **kwargs):
    global left
    left -= 1
    save(self, path, *args, **kwargs)
    if not left:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

Image.Image.save = save_or_die
main(sys.argv[1:])
"""


@once
def test_a_killed_run_resumes(galip, preset, tmp_path, calls):
    args = ["an owl", "Ein Käuzchen!", "--model", preset, "--num-images", "4", "--json"]
    command = [sys.executable, "-c", _KILLED, "sample", *args]
    whole, out = tmp_path / "whole", tmp_path / "out"
    killed = subprocess.run([*command, "--out", out], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert len(before) == 3
    for path in before:
        Image.open(path).load()
    code, output, errors = galip("sample", *args, "--out", out, "--resume")
    assert (code, errors) == (0, "3 of 8 files were there.\n")
    assert calls == [1] * 5
    assert {path: path.stat().st_mtime_ns for path in before} == before
    expected = sample(galip, *args, "--out", whole)
    assert json.loads(output.replace(str(out), str(whole))) == json.loads(expected)
    assert names(out) == names(whole)
    for name in names(out):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@once
def test_what_resuming_takes_for_done(galip, error, preset, tmp_path, calls):
    args = ["an owl", "--model", preset, "--seeds", "0-1", "--out", tmp_path]
    sample(galip, *args)
    first = tmp_path / "an-owl-0.png"
    content = first.read_bytes()
    first.write_bytes(b"")
    code, output, errors = galip("sample", *args, "--resume", "--grid")
    assert (code, errors) == (0, "1 of 2 files were there.\n")
    assert len(output.splitlines()) == 3
    assert first.read_bytes() == content
    # The grid has the one that was there, too.
    both = [pixels(tmp_path / f"an-owl-{i}.png") for i in (0, 1)]
    np.testing.assert_array_equal(pixels(tmp_path / "grid.png"), np.hstack(both))
    assert len(calls) == 3
    for other in ("--truncation", 0.5), ("--best-of", 2):
        code, line = error(*args, "--resume", *other)
        assert code == 1
        assert f"{first} was made with another" in line
    for description in ("", "a photo", "3", '["prompt"]'):
        exif = Image.Exif()
        exif[0x010E] = description
        Image.new("RGB", (9, 9)).save(first, exif=exif)
        assert "another prompt" in error(*args, "--resume")[1]
    assert len(calls) == 3
    # Without --resume it is made anew.
    sample(galip, *args)
    assert first.read_bytes() == content


@once
def test_a_grid_of_sheets_that_were_there(galip, preset, tmp_path, calls):
    args = "an owl", "a barn", "--model", preset, "--out", tmp_path, "--grid"
    sample(galip, *args)
    grid = (tmp_path / "grid.png").read_bytes()
    del calls[:]
    sample(galip, *args, "--resume")
    assert calls == []
    assert (tmp_path / "grid.png").read_bytes() == grid
    sheet = pixels(tmp_path / "a-barn.png")
    np.testing.assert_array_equal(
        pixels(tmp_path / "grid.png")[64:, 256:512], sheet[64:128]
    )


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


def test_pictures_made_at_once(galip, preset, tmp_path, calls):
    args = "an owl", "a barn", "--model", preset, "--num-images", 5, "--out"
    output = sample(galip, *args, tmp_path / "many", "--batch-size", 4)
    # The last ones are filled up.
    assert calls == [4, 4, 4]
    assert len(output.splitlines()) == 10
    sample(galip, *args, tmp_path / "single")
    assert names(tmp_path / "many") == names(tmp_path / "single")
    for name in names(tmp_path / "many"):
        many, single = (pixels(tmp_path / x / name) for x in ("many", "single"))
        assert np.abs(many.astype(int) - single).max() <= 1
        assert told(tmp_path / "many" / name) == told(tmp_path / "single" / name)


def own_scores(network, images, text):
    clip = network.backbone.clip
    found = clip.extract_features_and_embed(images / np.float32(127.5) - 1)[1]
    return [clip_score(x[None], text[None]) for x in convert_to_numpy(found)]


def test_the_best_of_some(galip, preset, network, tmp_path):
    args = "an owl", "--model", preset, "--json", "--out"
    output = sample(galip, *args, tmp_path, "--seeds", "0,5", "--best-of", 3)
    kept = json.loads(output)
    assert [x["asked_seed"] for x in kept] == [0, 5]
    (text,) = network.embed(["an owl"])
    for picture, first in zip(kept, (0, 15)):
        made = network.generate(["an owl"] * 3, seed=first)
        scores = own_scores(network, made, text)
        assert picture["seed"] == first + int(np.argmax(scores))
        assert picture["score"] == pytest.approx(max(scores), abs=1e-3)
        assert picture["scorer"] == "the model's own CLIP"
        path = pathlib.Path(picture.pop("path"))
        assert path.name == f"an-owl-{first // 3}.png"
        assert told(path) == picture
        assert Image.open(path).text == {k: str(v) for k, v in picture.items()}
        # The seed that it tells makes it again.
        output = sample(galip, *args, tmp_path / "again", "--seeds", picture["seed"])
        (again,) = json.loads(output)
        np.testing.assert_array_equal(pixels(path), pixels(again["path"]))


@once
def test_the_best_of_some_on_a_sheet(galip, preset, tmp_path, calls):
    args = "an owl", "--model", preset, "--best-of", 2, "--json", "--out", tmp_path
    (sheet,) = json.loads(sample(galip, *args, "--batch-size", 5))
    assert calls == [5] * 7
    assert sheet["asked_seeds"] == list(range(16))
    assert [seed // 2 for seed in sheet["seeds"]] == list(range(16))
    # Not always the same of both.
    assert len({seed % 2 for seed in sheet["seeds"]}) == 2
    assert len(sheet["scores"]) == 16
    (alone,) = json.loads(sample(galip, *args, "--seeds", 15))
    assert alone["seed"] == sheet["seeds"][15]
    difference = pixels(sheet["path"])[192:, 192:].astype(int) - pixels(alone["path"])
    assert np.abs(difference).max() <= 1


@once
def test_another_scorer(galip, error, preset, network, scorer, tmp_path):
    args = "an owl", "--model", preset, "--best-of", 4, "--out", tmp_path
    output = sample(galip, *args, "--seeds", "0-2", "--scorer", scorer, "--json")
    judge = Evaluator(scorer=scorer).scorers[0]
    (text,) = judge.embed(["an owl"])
    for picture in json.loads(output):
        first = 4 * picture["asked_seed"]
        made = network.generate(["an owl"] * 4, seed=first)
        scores = [clip_score(x[None], text[None]) for x in judge.extractor(made)]
        assert picture["seed"] == first + int(np.argmax(scores))
        assert picture["score"] == pytest.approx(max(scores), abs=1e-3)
        assert picture["scorer"] == told(picture["path"])["scorer"] == scorer
    code, line = error(*args, "--scorer", tmp_path)
    assert code == 1
    assert f"the CLIP '{tmp_path}' could not be loaded" in line


@once
def test_scores_that_are_no_numbers(error, preset, tmp_path, monkeypatch):
    monkeypatch.setattr("galip_keras.metrics.clip_score", lambda *_: np.nan)
    args = "an owl", "--model", preset, "--best-of", 2, "--out", tmp_path
    assert "no numbers" in error(*args, "--seeds", 0)[1]
    assert names(tmp_path) == []


def test_sums_of_sentences(galip, preset, network, tmp_path):
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
def test_the_best_of_sums(galip, preset, network, tmp_path):
    args = "a bird", "--plus", "red", "--minus", "blue", "--model", preset, "--json"
    output = sample(galip, *args, "--seeds", 1, "--best-of", 4, "--out", tmp_path)
    (picture,) = json.loads(output)
    texts = combine(network, ["a bird"], ["red"], ["blue"])
    noise = galip_keras.noise(range(4, 8), network.backbone.generator.latent_dim)
    made = network.decode(np.asarray(noise), np.repeat(texts, 4, axis=0))
    scores = own_scores(network, made, texts[0])
    assert picture["seed"] == 4 + int(np.argmax(scores))
    assert picture["score"] == pytest.approx(max(scores), abs=1e-3)
