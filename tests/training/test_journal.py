"""What a run tells, read back from its files."""

import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from galip_keras import backend
from galip_keras.training.journal import Journal, check_wandb

pytestmark = pytest.mark.every_backend

FIGURES = {"d_real": 0.5, "g_adversarial": -1.25}


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype="uint8"))


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def events(folder):
    """Lists of `(step, array)` by tag, out of TensorBoard's files."""
    accumulator = EventAccumulator(str(folder / "logs"), {"tensors": 0}).Reload()
    return {
        tag: [(e.step, make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]
        for tag in accumulator.Tags()["tensors"]
    }


def test_a_report_and_an_event_are_a_line_each(journal, tmp_path):
    journal.write(50, FIGURES)
    journal.tell(60, "rollback", to=50, reason="the samples collapsed")
    assert lines(tmp_path) == [
        {"step": 50, **FIGURES},
        {"step": 60, "event": "rollback", "to": 50, "reason": "the samples collapsed"},
    ]


@pytest.mark.parametrize("is_new_process", [True, False])
def test_rewind_keeps_events_and_drops_later_figures(journal, tmp_path, is_new_process):
    for step in (1, 2, 3):
        journal.write(step, FIGURES)
    journal.tell(3, "stopped")
    if is_new_process:
        journal.close()
        journal = Journal(tmp_path, step=2)
    else:
        journal.rewind(2)
    journal.write(3, {"d_real": 0.1})
    journal.close()
    assert lines(tmp_path) == [
        {"step": 1, **FIGURES},
        {"step": 2, **FIGURES},
        {"step": 3, "event": "stopped"},
        {"step": 3, "d_real": 0.1},
    ]
    assert [path.name for path in tmp_path.glob("metrics*")] == ["metrics.jsonl"]


@pytest.mark.parametrize("cut", ['{"step": 2, "d_re', '{"step": 1', "2", "\0\0"])
def test_rewind_drops_a_half_written_last_line(journal, tmp_path, cut):
    journal.write(1, FIGURES)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(cut)
    journal.rewind(5)
    journal.write(6, FIGURES)
    assert lines(tmp_path) == [{"step": 1, **FIGURES}, {"step": 6, **FIGURES}]


def test_rewind_completes_a_line_without_its_end(journal, tmp_path):
    journal.write(1, FIGURES)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    journal.rewind(5)
    journal.write(6, FIGURES)
    assert lines(tmp_path) == [{"step": 1, **FIGURES}, {"step": 6, **FIGURES}]


def test_warnings_come_again_after_a_rewind(journal, tmp_path):
    for step in (1, 3):
        journal.tell(step, "warning", reason="the samples collapsed")
    journal.tell(3, "collapse")
    journal.rewind(2)
    found = [(line["step"], line["event"]) for line in lines(tmp_path)]
    assert found == [(1, "warning"), (3, "collapse")]


def test_what_is_not_finite_is_still_json(journal, tmp_path):
    journal.write(1, {"d_real": float("nan"), "d_gradient_norm": float("inf")})
    assert lines(tmp_path) == [{"step": 1, "d_real": None, "d_gradient_norm": None}]


def test_tensorboard_reads_figures_as_they_are_written(journal, tmp_path):
    journal.write(50, FIGURES)
    journal.write(100, {"d_real": 0.25})
    # Before it is closed: runs are watched while they go on.
    assert events(tmp_path) == {"d_real": [(50, 0.5), (100, 0.25)]} | {
        "g_adversarial": [(50, -1.25)]
    }


def test_tensorboard_reads_samples(journal, tmp_path, image):
    journal.show(100, image)
    journal.close()
    ((step, (width, height, content)),) = events(tmp_path)["samples"]
    assert (step, int(width), int(height)) == (100, 8, 6)
    shown = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(image))


def test_other_processes_write_nothing(tmp_path, image, monkeypatch):
    monkeypatch.setattr(backend, "is_main", lambda: False)
    journal = Journal(tmp_path, wandb=True)
    journal.write(1, FIGURES)
    journal.tell(1, "stopped")
    journal.show(1, image)
    journal.rewind(0)
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_wandb_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    for start in (check_wandb, lambda: Journal(tmp_path, wandb=True)):
        with pytest.raises(ValueError, match="pip install") as error:
            start()
        assert "\n" not in str(error.value)


@pytest.fixture
def wandb(monkeypatch):
    """A module of that name that writes down what it is asked, in `calls`."""
    module = types.ModuleType("wandb")
    module.calls = []

    def record(name, result=None):
        def call(*args, **kwargs):
            module.calls.append((name, args, kwargs))
            return result

        return call

    run = types.SimpleNamespace(
        log=record("log"), finish=record("finish"), define_metric=record("define")
    )
    module.init = record("init", run)
    module.Image = lambda image: ("image", image)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_is_told_the_same(tmp_path, wandb, image):
    journal = Journal(tmp_path, config={"seed": 3}, wandb=True)
    journal.write(50, FIGURES)
    journal.show(50, image)
    journal.close()
    (name, _, settings), *_ = wandb.calls
    assert name == "init"
    assert settings["name"] == tmp_path.name
    assert settings["config"] == {"seed": 3}
    logged = [args for name, args, _ in wandb.calls if name == "log"]
    assert logged == [
        ({"step": 50, **FIGURES},),
        ({"step": 50, "samples": ("image", image)},),
    ]
    assert wandb.calls[-1][0] == "finish"
    assert lines(tmp_path) == [{"step": 50, **FIGURES}]


def test_a_resumed_run_is_the_same_one_to_wandb(tmp_path, wandb):
    folders = [tmp_path / name / "birds" for name in ("a", "a", "b")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        Journal(folder, wandb=True).close()
    first, resumed, other = (k for name, _, k in wandb.calls if name == "init")
    assert first["id"] == resumed["id"] != other["id"]
    assert resumed["resume"] == "allow"


def test_wandb_is_not_touched_unless_asked(journal, wandb):
    journal.write(1, FIGURES)
    assert wandb.calls == []
