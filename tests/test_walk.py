"""A newcomer's first hour: typos, unusual folders, unusual terminals."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from drawn import draw_circles

from galip_cli.main import COMMANDS

GALIP = [sys.executable, "-m", "galip_cli.main"]
ESCAPE = "\x1b"
TOYBIRDS = pathlib.Path(__file__).parents[1] / "galip_keras" / "presets" / "toybirds"


def run(*args, cwd=None, **variables):
    """Run a command in a process of its own, with TensorFlow's messages enabled."""
    environment = {**os.environ, **variables}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [*GALIP, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture
def fails(galip):
    def run(*args):
        code, output, errors = galip(*args)
        assert output == ""
        assert errors.count("\n") == 1
        return code, errors

    return run


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["smaple", "a red bird"], "galip sample"),
        (["data", "inpsect"], "galip data inspect"),
        (["a red bird"], "galip sample 'a red bird'"),
        (["zzz"], "galip --help"),
    ],
)
def test_the_command_that_was_meant(fails, args, meant):
    code, errors = fails(*args)
    assert code == 2
    assert f"Did you mean `{meant}`?" in errors


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["sample", "a bird", "--seed", "3"], "--seeds"),
        (["train", "--datset", "cub"], "--dataset"),
        (["export", "--format", "savedmodel", "--out", "x"], "saved_model"),
        (["sample", "a bird", "--model", "toybird"], "toybirds"),
        (["train", "--dataset", "cubs", "--dry-run"], "cub"),
        (["evaluate", "--model", "toybirds", "--dataset", "toybird"], "toybirds"),
    ],
)
def test_the_word_that_was_meant(fails, args, meant):
    _, errors = fails(*args)
    assert re.search(rf"(?<!\w){meant}(?!\w)", errors)


@pytest.mark.parametrize(
    ("args", "missing", "extra"),
    [
        (["serve"], "fastapi", "serve"),
        (["serve", "--ui"], "uvicorn", "serve"),
        (["serve", "--grpc-port", "9"], "tensorflow_serving", "grpc"),
        pytest.param(
            ["export", "--format", "onnx", "--out", "x"],
            "tf2onnx",
            "export",
            marks=pytest.mark.extra("export", "onnxruntime"),
        ),
        (["export", "--format", "litert", "--out", "x"], "ai_edge_litert", "export"),
        (["interpolate", "a", "b", "--format", "mp4"], "imageio_ffmpeg", "video"),
    ],
)
def test_what_is_not_installed(fails, monkeypatch, args, missing, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda x: None if x == missing else find(x)
    )
    code, errors = fails(*args)
    assert code == 1
    assert f"needs {missing}: pip install 'galip-keras[{extra}]'" in errors


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_that_is_not_installed(tmp_path, backend):
    error = f'ModuleNotFoundError("No module named {backend}", name="{backend}")'
    (tmp_path / f"{backend}.py").write_text(f"raise {error}")
    arguments = ["sample", "a bird", "--model", "galip_tiny"]
    result = run(*arguments, PYTHONPATH=str(tmp_path), KERAS_BACKEND=backend)
    assert result.returncode == 1
    extra = f"pip install 'galip-keras[{backend}]'"
    assert result.stderr == f"Error: this backend needs {backend}: {extra}.\n"


def test_without_arguments_it_says_what_to_do_first(galip):
    code, output, errors = galip()
    assert (code, errors) == (0, "")
    assert 'galip sample "a red bird"' in output
    assert all(f"  {command} " in output for command in COMMANDS)


@pytest.mark.parametrize(
    "args",
    [["--help"], ["data", "list"], ["info"], *([c, "--help"] for c in COMMANDS)],
    ids=" ".join,
)
def test_sixty_columns(galip, monkeypatch, tmp_path, args):
    monkeypatch.setenv("COLUMNS", "60")
    # Paths are not wrapped, so the output should not have a long one.
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    code, output, _ = galip(*args)
    assert code == 0
    # Examples are not wrapped, so that they can be copied.
    lines = [x for x in output.splitlines() if not re.match(r" +galip \w", x)]
    assert [line for line in lines if len(line) > 60] == []


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_nothing_is_said_that_was_not_asked_for(tmp_path):
    # By its name it would be drawn without TensorFlow, which is what has much to say.
    arguments = ["sample", "a red bird", "--seeds", "1"]
    arguments += ["--model", str(TOYBIRDS)]
    quiet = run(*arguments, cwd=tmp_path)
    assert quiet.returncode == 0
    assert quiet.stderr == ""
    assert (tmp_path / quiet.stdout.strip()).is_file()
    loud = run(*arguments, "--verbose", cwd=tmp_path)
    assert loud.stdout == quiet.stdout
    assert loud.stderr != ""


@pytest.mark.backend("tensorflow")
def test_preparing_says_nothing(tmp_path):
    draw_circles(tmp_path / "circles")
    for command in ("prepare", "inspect"):
        result = run("data", command, "folder:circles", "--data-dir=data", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("file_format", ["litert", "onnx"])
def test_exporting_says_only_what_was_measured(tmp_path, file_format):
    out = ["--format", file_format, "--out", "exported"]
    result = run("export", "--model", "toybirds", *out, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"[\d.]+ MB\. On eight prompts, .*\n", result.stderr)
    result = run("sample", "a red bird", "--model", "exported", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_training_says_what_is_about_training(tmp_path):
    draw_circles(tmp_path / "circles")
    settings = ["--preset", "galip_tiny", "--steps", "2", "--batch-size", "2"]
    result = run(
        "train", "--dataset", "folder:circles", "--data-dir", "data", *settings,
        cwd=tmp_path, NO_COLOR="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'runs' / 'circles'}\n"
    noise = r"(?i)warning:|userwarning|tensorflow|oneDNN|cuda|absl|retracing|\.py:\d"
    assert not re.search(noise, result.stderr), result.stderr
    assert ESCAPE not in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_without_a_home_and_without_a_network(tmp_path):
    # Nobody can write below a file, not even root.
    nowhere = {"HOME": "/dev/null", "https_proxy": "http://127.0.0.1:9"}
    result = run("sample", "a red bird", "--json", cwd=tmp_path, **nowhere)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(json.loads(result.stdout)) == 1
    draw_circles(tmp_path / "circles")
    result = run(
        "train", "--dataset", "folder:circles", "--preset", "galip_tiny",
        "--steps", "1", cwd=tmp_path, **nowhere,
    )  # fmt: skip
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: datasets cannot be stored in /dev/null/")
    assert last.endswith("choose another --data-dir")
    result = run(
        "train", "--dataset", "folder:circles", "--steps", "1",
        "--data-dir", "data", cwd=tmp_path, **nowhere,
    )  # fmt: skip
    assert result.returncode == 1
    assert "CLIP preset as --clip" in result.stderr.splitlines()[-1]


def test_a_path_with_spaces_and_accents(galip, less_to_compile, tmp_path):
    place = tmp_path / "une caf\u00e9 \u732b"
    place.mkdir()
    draw_circles(place / "mes images")
    run = place / "ma course"
    code, output, errors = galip(
        "train", "--dataset", f"folder:{place / 'mes images'}", "--run", run,
        "--data-dir", place / "les donn\u00e9es", "--preset", "galip_tiny",
        "--steps", "1", "--batch-size", "2",
    )  # fmt: skip
    assert (code, output) == (0, f"{run}\n"), errors
    out = place / "des oiseaux"
    code, output, errors = galip("sample", "un oiseau", "--model", run, "--out", out)
    assert code == 0, errors
    assert output.startswith(str(out))
