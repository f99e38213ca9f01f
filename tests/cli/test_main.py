import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from drawn import draw_circles
from marks import slow_on_torch

import galip_keras
from galip_cli.main import COMMANDS, main, name_options
from galip_cli.main import galip as group
from galip_cli.quiet import quiet_imports
from galip_keras import GALIPTextToImage

pytestmark = pytest.mark.every_backend

GALIP = [sys.executable, "-m", "galip_cli.main"]


def test_garbage_is_collected_again_after_imports():
    def fail():
        with quiet_imports():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()


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


@pytest.mark.parametrize(
    "args",
    [
        ["nope"],
        ["train"],
        ["train", "--dataset", "folder:x", "--epochs", "1", "--steps", "1"],
        ["train", "--dataset", "folder:x", "--steps", "0"],
        ["train", "--dataset", "folder:x", "--num-processes", "2"],
        ["train", "--dataset", "folder:x", "--coordinator", "localhost:1"],
        ["train", "--dataset", "toybirds", "--energy-weight", "nan"],
        ["train", "--dataset", "toybirds", "--generator-lr", "inf"],
    ],
)
def test_wrong_usage(error, args):
    assert error(*args)[0] == 2


def test_failures_are_one_line(error, tmp_path):
    for model in ("nope", str(tmp_path), "galip_tiny/nope"):
        code, line = error("sample", "an owl", "--model", model, "--out", tmp_path)
        assert code == 1
        assert model in line
    code, line = error(
        "sample", "an owl", "--model", "galip_tiny", "--out", "/dev/null/x"
    )
    assert code == 1
    assert "/dev/null/x cannot be written" in line
    assert "--out" in line
    code, line = error("train", "--dataset", "folder:x", "--run", "/dev/null/x")
    assert code == 1
    assert "/dev/null/x cannot be written" in line


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("train", "choose another `run`", "choose another --run"),
        ("train", "set `data_dir` and `num_devices`", "set --data-dir and --devices"),
        ("data", "give another `data_dir`", "give another --data-dir"),
        ("train", "give another `nothing`", "give another `nothing`"),
        ("train", "see `galip data list`", "see `galip data list`"),
        ("info", "choose another `run`", "choose another `run`"),
    ],
)
def test_arguments_in_a_message_become_options(command, text, expected):
    assert name_options(text, group.get_command(None, command)) == expected


def test_a_message_of_the_package_names_options(error, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("")
    dataset = f"folder:{draw_circles(tmp_path / 'circles')}"
    train = ["train", "--dataset", dataset, "--preset", "galip_tiny"]
    code, line = error(*train, "--run", tmp_path / "run")
    assert code == 1
    assert "with --resume, or choose another --run" in line
    code, line = error(*train, "--run", tmp_path / "new", "--data-dir", "/dev/null/x")
    assert code == 1
    assert "--data-dir" in line


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
    """A real training process that has saved some steps. It is killed in the end."""
    target = last_step(run) + 2
    # As for a user: the setting of the tests would let TensorFlow write messages.
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
    dataset = f"folder:{draw_circles(tmp_path / 'circles')}"
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


# Each of these processes starts anew. In one process, tests/training resumes on every
# backend, and after `kill -9`.
@slow_on_torch
def test_interrupted_training_resumes(galip, tmp_path):
    dataset = f"folder:{draw_circles(tmp_path / 'circles')}"
    run = tmp_path / "run"
    settings = [
        "--dataset", dataset, "--preset", "galip_tiny", "--batch-size", "2",
        "--run", str(run), "--data-dir", str(tmp_path / "prepared"),
        "--save-every", "1", "--resume", "--steps",
    ]  # fmt: skip
    command = [*GALIP, "train", *settings, "100000"]
    stops = (signal.SIGTERM, 143), (signal.SIGINT, 130)
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
        else:
            assert f"no checkpoint in {run}: starting at step 0" in errors
        assert f"Stopped by {number.name} at step {last_step(run)} " in errors
        assert "--resume" in errors.splitlines()[-1]
        # Nothing but our own lines: no messages of TensorFlow, no warnings.
        assert "WARNING" not in errors
        assert "Warning" not in errors
        GALIPTextToImage.from_preset(str(run / "preset"))
    last = last_step(run)
    code, output, errors = galip("train", *settings, last)
    assert (code, output) == (0, f"{run}\n")
    assert f"This run is at its last step, {last}" in errors
