import contextlib
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from drawn import draw_pictures
from PIL import Image

import galip_keras
from galip_cli.main import COMMANDS, main
from galip_cli.quiet import quiet_imports
from galip_keras import GALIPTextToImage

GALIP = [sys.executable, "-m", "galip_cli.main"]


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    GALIPTextToImage.from_preset("galip_tiny").save_to_preset(str(folder))
    return str(folder)


@pytest.fixture
def error(galip):
    """Runs a command that fails. Returns its error, which is one line, and the code."""

    def run(*args):
        code, output, errors = galip(*args)
        assert output == ""
        assert errors.startswith("Error: ")
        assert errors.count("\n") == 1
        return code, errors

    return run


def test_garbage_is_collected_again_after_imports():
    def fail():
        with quiet_imports():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys, atexit\n"
        "from galip_cli.main import main\n"
        "heavy = {'keras', 'tensorflow', 'numpy', 'jax', 'torch', 'PIL'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        f"main({args})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_two_examples(galip, command):
    code, output, _ = galip(command, "--help")
    assert code == 0
    assert output.count(f"\n    galip {command}") == 2


def test_group_help_without_arguments(galip):
    code, output, _ = galip()
    assert code == 0
    assert all(f"\n  {command} " in output for command in COMMANDS)


@pytest.mark.parametrize(
    "args",
    [
        ["nope"],
        ["train"],
        ["train", "--dataset", "folder:x", "--epochs", "1", "--steps", "1"],
        ["train", "--dataset", "folder:x", "--steps", "0"],
        ["train", "--dataset", "folder:x", "--num-processes", "2"],
        ["train", "--dataset", "folder:x", "--coordinator", "localhost:1"],
        ["sample", "--model", "galip_tiny"],
        ["sample", " ", "--model", "galip_tiny"],
        ["sample", "an owl", "--model", "galip_tiny", "--seeds", "7-0"],
        ["sample", "an owl", "--model", "galip_tiny", "--seeds", "-1"],
        ["sample", "an owl", "--model", "galip_tiny", "--seeds", "0-999999999999"],
        ["sample", "an owl", "--model", "m", "--seeds", "0", "--num-images", "2"],
        ["sample", "an owl", "--model", "galip_tiny", "--truncation", "-1"],
        ["sample", "--prompts-file", "/nowhere", "--model", "galip_tiny"],
    ],
)
def test_wrong_usage(error, args):
    assert error(*args)[0] == 2


def test_failures_are_one_line(error, tmp_path):
    for model in ("nope", str(tmp_path), "galip_tiny/nope"):
        code, line = error("sample", "an owl", "--model", model, "--out", tmp_path)
        assert code == 1
        assert model in line
    code, line = error("sample", "an owl", "--model", "m", "--out", "/dev/null/x")
    assert code == 1
    assert "/dev/null/x cannot be written" in line
    code, line = error("train", "--dataset", "folder:x", "--run", "/dev/null/x")
    assert code == 1
    assert "/dev/null/x cannot be written" in line


def test_damaged_preset_is_one_line(error, tmp_path):
    (tmp_path / "config.json").write_text("{}\n")
    code, line = error("info", tmp_path)
    assert code == 1
    assert "could not be loaded" in line


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(tmp_path, place):
    args = ["info", str(tmp_path)]
    with pytest.raises(ValueError, match="holds no preset"):
        main(["--debug", *args] if place == "before" else [*args, "--debug"])


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
    root = pathlib.Path(__file__).parents[1]
    shown = Image.open(root / "examples" / "toybirds" / "a-red-bird.png")
    difference = np.asarray(shown, "float32") - np.asarray(sheet, "float32")
    assert np.abs(difference).mean() < 1


def test_words_that_toybirds_does_not_know(galip, tmp_path):
    args = ["a red bird and an Astronaut 猫", "--seeds", 0, "--out", tmp_path]
    code, output, errors = galip("sample", *args)
    assert code == 0
    assert Image.open(output.strip()).size == (64, 64)
    assert errors.count("\n") == 1
    assert "'astronaut', '猫'" in errors
    assert "'red'" not in errors
    assert "galip convert" in errors


def test_prompts_file_that_is_no_text(error, tmp_path):
    (tmp_path / "prompts").write_bytes(b"\xff\xfe\x00")
    code, line = error(
        "sample", "--prompts-file", tmp_path / "prompts", "--model", "galip_tiny"
    )
    assert code == 2
    assert "UTF-8" in line


def test_info(galip, preset):
    code, output, errors = galip("info", "--json")
    facts = json.loads(output)
    assert (code, errors) == (0, "")
    assert facts["galip_keras"] == galip_keras.__version__
    architectures = {"galip_vit_base_patch32", "galip_small", "galip_tiny"}
    assert facts["architectures"].keys() == architectures
    assert facts["presets"].keys() == {"toybirds"}
    code, output, errors = galip("info", preset, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output)["image_size"] == 64
    assert "generator_parameters      1,501,635\n" in galip("info", preset)[1]


def last_step(run):
    """The step of the newest checkpoint in a run folder, 0 without one."""
    names = [p.name for p in run.glob("checkpoints/step_*") if p.suffix != ".tmp"]
    return max((int(name[5:]) for name in names), default=0)


@contextlib.contextmanager
def training(command, run, stderr):
    """A real training process that has saved some steps; killed in the end."""
    target = last_step(run) + 2
    # As a user has it: the tests' own setting would keep TensorFlow talking.
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env
    ) as process:
        try:
            deadline = time.monotonic() + 300
            while last_step(run) < target:
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "it makes no progress"
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.backend("torch")
def test_exit_codes_of_training(galip, tmp_path):
    dataset = f"folder:{draw_pictures(tmp_path / 'circles')}"
    command = [
        "train", "--dataset", dataset, "--preset", "galip_tiny", "--batch-size", "2",
        "--run", tmp_path / "run", "--data-dir", tmp_path / "prepared",
        "--report-every", "1", "--steps", "50", "--resume",
    ]  # fmt: skip
    code, output, errors = galip(*command, "--max-hours", "1e-9")
    assert (code, output) == (75, "")
    assert errors.endswith(
        "Stopped by --max-hours at step 1 of 50, all saved. The same command with "
        "--resume goes on.\n"
    )
    code, output, errors = galip(*command, "--generator-lr", "1e30")
    assert (code, output) == (1, "")
    (line,) = [x for x in errors.splitlines() if x.startswith("Error: ")]
    assert "of 50, since training went wrong: " in line
    assert "not a number" in line


# In processes that each start and compile; in one process test_training.py resumes on
# every backend.
@pytest.mark.backend("tensorflow")
def test_interrupted_training_resumes(galip, tmp_path):
    dataset = f"folder:{draw_pictures(tmp_path / 'circles')}"
    run = tmp_path / "run"
    settings = [
        "--dataset", dataset, "--preset", "galip_tiny", "--batch-size", "2",
        "--run", str(run), "--data-dir", str(tmp_path / "prepared"),
        "--save-every", "1", "--resume", "--steps",
    ]  # fmt: skip
    command = [*GALIP, "train", *settings, "100000"]
    stops = (signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)
    for number, exit_code in stops:
        before = last_step(run)
        with (
            open(tmp_path / "stderr", "w+") as stderr,
            training(command, run, stderr) as process,
        ):
            os.kill(process.pid, number)
            output, _ = process.communicate(timeout=120)
            stderr.seek(0)
            errors = stderr.read()
        assert process.returncode == exit_code
        assert output == ""
        if before:
            assert f"Resumed at step {before} of 100000." in errors
        if number == signal.SIGKILL:
            assert f"no checkpoint in {run}: starting at step 0" in errors
            assert not (run / "preset").exists()
        else:
            assert f"Stopped by {number.name} at step {last_step(run)} " in errors
            assert "--resume" in errors.splitlines()[-1]
            # Nothing but our own lines: no notes of TensorFlow's, no warnings.
            assert "WARNING" not in errors
            assert "Warning" not in errors
            GALIPTextToImage.from_preset(str(run / "preset"))
    last = last_step(run)
    code, output, errors = galip("train", *settings, last)
    assert (code, output) == (0, f"{run}\n")
    assert f"This run is at its last step, {last}" in errors
