"""The settings: said once, checked, and found again wherever they are shown."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest

from galip_keras import datasets
from galip_keras.models import augmentation
from galip_keras.training import plan
from galip_keras.training.config import TrainingConfig, settings

ROOT = pathlib.Path(__file__).parents[2]

# Options of `galip train` that say where a run is kept and how a process takes part.
OF_THE_PROCESS = {
    "run",
    "resume",
    "max_hours",
    "coordinator",
    "num_processes",
    "process_id",
    "dry_run",
}


def options(module):
    """The options of `galip train`, by parameter name."""
    command = module.train
    return {p.name: p for p in command.params if isinstance(p, click.Option)}


def test_the_options_are_the_settings():
    from galip_cli import train

    names = options(train).keys() - {"debug", "verbose", "yes"}
    assert names == settings().keys() | OF_THE_PROCESS
    for name, setting in settings().items():
        assert setting.help in options(train)[name].help


def test_a_new_setting_is_a_line_in_one_file(tmp_path):
    """A field more, in a copy of the package: option, check and JSON follow."""
    package = tmp_path / "galip_keras"
    for folder in ("", "training"):
        (package / folder).mkdir(exist_ok=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").write_text('__version__ = "0"\n')
    for name in ("recipes.py", "setting.py"):
        shutil.copy(ROOT / "galip_keras" / "training" / name, package / "training")
    source = (ROOT / "galip_keras" / "training" / "config.py").read_text()
    line = '    zoom: int = _setting(3, "Zoom of the images.", least=2)\n\n'
    before = "    def __post_init__"
    assert source.count(before) == 1
    (package / "training" / "config.py").write_text(
        source.replace(before, line + before)
    )
    (tmp_path / "galip_cli").symlink_to(ROOT / "cli")
    script = """
import json
from galip_cli.train import train
from galip_keras.training.config import TrainingConfig
(option,) = [p for p in train.params if p.name == "zoom"]
try:
    TrainingConfig("toybirds", zoom=1)
except ValueError as error:
    print(json.dumps([option.opts, option.help, option.default, str(error),
        TrainingConfig("toybirds").to_dict()["zoom"]]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout or "[]") == [
        ["--zoom"],
        "Zoom of the images.",
        3,
        "zoom must be at least 2, not 1",
        3,
    ], result.stderr


def test_it_imports_the_standard_library_alone():
    code = (
        "import sys, galip_keras.training.config; "
        "print({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names"
        " - {'galip_keras', '__main__'})"
    )
    script = [sys.executable, "-S", "-c", code]
    result = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "set()\n", result.stderr


def test_the_docs_have_the_settings():
    script = [sys.executable, ROOT / "docs" / "settings.py", "--check"]
    result = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_choices_are_those_of_the_package():
    assert settings()["augmentation"].choices == augmentation.KINDS
    assert settings()["freeze"].choices == tuple(plan._PARTS)
    assert set(datasets.FOLDER_OPTIONS) <= settings().keys()


def test_json_brings_the_same_settings_back():
    config = TrainingConfig(
        "folder:birds", steps=3, freeze=["head", "bridge"], data_dir=pathlib.Path("x")
    )
    content = json.loads(json.dumps(config.to_dict()))
    assert TrainingConfig(**content) == config
    assert content["freeze"] == ["bridge", "head"]
    assert content["data_dir"] == "x"


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig("toybirds").steps = 3


def test_a_hundred_epochs_without_steps():
    assert TrainingConfig("toybirds").epochs == 100
    assert TrainingConfig("toybirds", steps=3).epochs is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1, "steps": 1}, "epochs or steps, not both"),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1"),
        ({"seed": 2**31}, "seed must be at most 2147483647"),
        (
            {"similarity_weight": float("nan")},
            "similarity_weight must be finite, not nan",
        ),
        ({"energy_weight": np.float32("nan")}, "energy_weight must be finite, not nan"),
        ({"steps": 10**400 * -1}, "steps must be at least 1, not -1000"),
        ({"range_weight": float("inf")}, "range_weight must be finite, not inf"),
        ({"generator_lr": 0}, "generator_lr must be more than 0, not 0"),
        ({"precision": "float64"}, "precision must be one of float32, "),
        ({"freeze": "clip"}, "freeze must be one of bridge, "),
        ({"augmentation": ["color", "flip"]}, "augmentation must be one of color, "),
    ],
)
def test_values_that_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig("toybirds", **changes)


def test_a_name_that_is_misspelled():
    from galip_keras import train

    with pytest.raises(TypeError, match="no setting 'step': did you mean 'steps'"):
        train("toybirds", step=3)


def test_changes_are_told_where_they_matter():
    now = TrainingConfig("toybirds", batch_size=8, steps=7, report_every=3)
    earlier = TrainingConfig("toybirds", batch_size=4, epochs=2).to_dict()
    assert now.changes_from(earlier) == ["batch_size was 4 and is 8"]
    # Written by a version that did not have the setting.
    del earlier["batch_size"]
    assert now.changes_from(earlier) == []
