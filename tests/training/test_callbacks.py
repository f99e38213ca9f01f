import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from galip_keras import GALIP
from galip_keras.images import image_grid
from galip_keras.models import text_to_image
from galip_keras.training.callbacks import Report, Samples
from galip_keras.training.collapse import Guard
from galip_keras.training.journal import Journal
from galip_keras.training.progress import Interruption, Progress

pytestmark = pytest.mark.every_backend


@pytest.fixture(scope="module")
def text_to_image_model():
    return text_to_image.build("galip_tiny")


@pytest.fixture(scope="module")
def gan(text_to_image_model):
    gan = GALIP(text_to_image_model.backbone.generator)
    gan.compile()
    return gan


@pytest.fixture
def samples(gan, text_to_image_model, tmp_path):
    """Samples at every second step, up to step 5, and what was saved as the best."""

    def make(captions=("an owl", "a tent", "a fox", "a pie"), every=2):
        saved = []
        callback = Samples(
            tmp_path / "samples",
            every,
            last=5,
            text_to_image=text_to_image_model,
            real=np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), "uint8"),
            captions=list(captions),
            journal=Journal(tmp_path),
            guard=Guard(),
            save_best=lambda model: saved.append(callback.step),
        )
        gan.step.assign(0)
        gan.stop_training = False
        callback.set_model(gan)
        callback.on_train_begin()
        return callback, saved

    return make


def lines(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_samples(samples, tmp_path):
    callback, saved = samples()
    for batch in range(5):
        callback.on_train_batch_end(batch)
    callback.on_train_end()
    callback.on_train_end()
    paths = sorted((tmp_path / "samples").iterdir())
    assert [p.name for p in paths] == [f"step_{i:06d}.png" for i in (2, 4, 5)]
    grids = [np.asarray(Image.open(path)) for path in paths]
    assert grids[0].shape == (128, 128, 3)
    # Nothing was learned in between: same noise, same captions, same images.
    np.testing.assert_array_equal(grids[0], grids[1])
    assert [line.pop("step") for line in lines(tmp_path)] == [2, 4, 5]
    assert saved == [2]


def test_figures_of_samples(samples, tmp_path):
    callback, _ = samples(["an owl"] * 20)
    callback.on_train_batch_end(0)
    callback.on_train_batch_end(1)
    (line,) = lines(tmp_path)
    assert line.keys() == {"step", "cmmd", "clip_score", "diversity"}
    assert line["cmmd"] > 0
    assert -1 <= line["clip_score"] <= 1
    assert line["diversity"] > 0
    # Of twenty images sixteen are shown.
    grid = Image.open(tmp_path / "samples" / "step_000002.png")
    assert grid.size == (4 * 64, 4 * 64)


def test_collapsed_samples_stop_the_training(samples, gan):
    callback, saved = samples()
    callback.guard.state.update(first=1e9, best=1e9, diversity=1e9)
    callback.on_train_batch_end(0)
    callback.on_train_batch_end(1)
    assert "samples collapsed" in callback.guard.reason
    assert gan.stop_training
    assert saved == []


def test_report(gan, tmp_path):
    guard = Guard()
    report = Report(2, last=3, batch_size=8, journal=Journal(tmp_path), guard=guard)
    gan.step.assign(0)
    gan.stop_training = False
    report.set_model(gan)
    report.on_train_begin()
    for batch, value in enumerate((1.0, 3.0, 7.0)):
        for tracker in gan.trackers:
            tracker.update_state(value)
        report.on_train_batch_end(batch)
    report.on_train_end()
    first, second = lines(tmp_path)
    assert (first["step"], second["step"]) == (2, 3)
    # Of the steps since the last report only.
    assert (first["d_real"], second["d_real"]) == (2, 7)
    assert first["g_learning_rate"] == pytest.approx(1e-4)
    assert first["d_learning_rate"] == pytest.approx(4e-4)
    assert first["tap_block_0_gamma"] == first["tap_block_0_beta"] == 0
    assert first["pictures_per_second"] > 0
    assert guard.reason is None


def test_report_of_no_numbers_stops_the_training(gan, tmp_path):
    guard = Guard(goes_on=True)
    report = Report(1, last=3, batch_size=8, journal=Journal(tmp_path), guard=guard)
    gan.stop_training = False
    report.set_model(gan)
    report.on_train_begin()
    gan.reset_metrics()
    gan.trackers[0].update_state(np.nan)
    report.on_train_batch_end(0)
    gan.reset_metrics()
    assert guard.reason == "not a number: d_real"
    assert gan.stop_training


def test_image_grid_is_laid_out_in_rows():
    images = np.arange(6, dtype="uint8")[:, None, None, None]
    images = np.broadcast_to(images, (6, 2, 2, 3))
    grid = np.asarray(image_grid(images, columns=3))
    assert grid.shape == (4, 6, 3)
    np.testing.assert_array_equal(grid[::2, ::2, 0], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_by_a_signal(gan, number):
    before = signal.getsignal(number)
    gan.stop_training = False
    with Interruption() as stop:
        stop.set_model(gan)
        stop.on_train_batch_end(0)
        assert not gan.stop_training
        os.kill(os.getpid(), number)
        stop.on_train_batch_end(1)
        # The next one ends the process.
        assert signal.getsignal(number) == signal.SIG_DFL
    assert stop.received == number
    assert not stop.is_late
    assert gan.stop_training
    assert signal.getsignal(number) == before


def test_interruption_when_time_is_up(gan):
    gan.stop_training = False
    stop = Interruption(deadline=time.monotonic() + 0.2)
    stop.set_model(gan)
    stop.on_train_batch_end(0)
    assert not gan.stop_training
    time.sleep(0.3)
    stop.on_train_batch_end(1)
    assert gan.stop_training
    assert stop.is_late
    assert stop.received is None


def test_progress_tells_step_and_losses(gan, capsys):
    gan.step.assign(5)
    progress = Progress(last=7)
    progress.set_model(gan)
    progress.on_train_begin()
    progress.on_train_batch_end(0, {"d_real": 0.5, "d_gradient_norm": 9})
    progress.on_train_batch_end(1, {"d_real": 0.25, "d_gradient_norm": 9})
    progress.on_train_end()
    output, errors = capsys.readouterr()
    assert output == ""
    assert "7/7" in errors
    assert "d_real=0.25" in errors
    assert "step" in errors
    assert "gradient_norm" not in errors
