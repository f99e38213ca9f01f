"""`galip sample` in bulk: prompt files, shards, batches, and resuming after a kill."""

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
from PIL import Image
from sampled import names, pixels, sample, told

from galip_keras import GALIPTextToImage

# What does not depend on the backend.
once = pytest.mark.backend("tensorflow")

pytestmark = [pytest.mark.every_backend, pytest.mark.usefixtures("loaded_once")]


@pytest.mark.parametrize(
    ("ending", "rows", "message"),
    [
        ("jsonl", "{", "no JSON object"),
        ("jsonl", "3", "no JSON object"),
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
    code, line = error("sample", "--prompts-file", file, "--model", "m", "--out", out)
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
        code, line = error("sample", "--prompts-file", tmp_path / name, "--model", "m")
        assert code == 2
        assert message in line
    line = error("sample", "--prompts-file", tmp_path / "none.txt", "--model", "m")[1]
    assert "none.txt cannot be read (No such file or directory)." in line
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "seed": 3}')
    args = "--prompts-file", tmp_path / "a.jsonl", "--model", "m"
    assert "seeds in a file" in error("sample", *args, "--grid")[1]
    assert "has no 2 candidates" in error("sample",
        "x", "--seeds", 2**62, *args, "--best-of", 2
    )[1]  # fmt: skip


@once
def test_own_seeds_make_images_and_the_others_sheets(galip, preset, tmp_path):
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
    (image,) = json.loads(sample(galip, *args, "--json"))
    assert image["prompt"] == "ein Käuzchen"


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
def test_many_images_in_little_memory(galip, preset, tmp_path, monkeypatch):
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
        # All images before this one are on disk.
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
    for description in ("", "a photo", "3", '["prompt"]'):
        exif = Image.Exif()
        exif[0x010E] = description
        Image.new("RGB", (9, 9)).save(first, exif=exif)
        assert "another prompt" in error("sample", *args, "--resume")[1]
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


def test_images_drawn_at_once(galip, preset, tmp_path, calls):
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
