import json
import os
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from galip_keras import GALIP, text_to_image
from galip_keras.callbacks import (
    Checkpoint,
    Progress,
    SampleGrid,
    StopOnSignal,
    image_grid,
    training_step,
    write_folder,
)


@pytest.fixture(scope="module")
def text_to_image_model():
    return text_to_image.build("galip_tiny")


@pytest.fixture(scope="module")
def gan(text_to_image_model):
    gan = GALIP(text_to_image_model.backbone.generator)
    gan.compile()
    return gan


def set_state(gan, step):
    """Stands in for training: every kind of state becomes a function of the step."""
    for optimizer in (gan.optimizer.generator, gan.optimizer.discriminator):
        optimizer.iterations.assign(step)
        momentum = optimizer.variables[-1]
        momentum.assign(np.full(momentum.shape, step, "float32"))
    gan.seed_generator.state.assign([7, step])
    for network in (gan.generator, gan.discriminator):
        weight = network.trainable_variables[0]
        weight.assign(np.full(weight.shape, step, "float32"))


def state(gan):
    optimizers = (gan.optimizer.generator, gan.optimizer.discriminator)
    networks = (gan.generator, gan.discriminator)
    return [
        *(int(optimizer.iterations) for optimizer in optimizers),
        *(float(np.mean(optimizer.variables[-1])) for optimizer in optimizers),
        int(gan.seed_generator.state[1]),
        *(float(np.mean(n.trainable_variables[0])) for n in networks),
    ]


def save(gan, checkpoint, *steps):
    for step in steps:
        set_state(gan, step)
        checkpoint.save(gan)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_restores_every_state(gan, tmp_path):
    checkpoint = Checkpoint(tmp_path, every=10)
    save(gan, checkpoint, 30)
    set_state(gan, 1)
    assert checkpoint.restore(gan) == 30
    assert state(gan) == [30] * 7
    assert training_step(gan) == 30


def test_checkpoint_keeps_the_newest(gan, tmp_path):
    save(gan, Checkpoint(tmp_path, every=10, keep=2), 9, 10, 100)
    assert names(tmp_path) == ["step_00000010", "step_00000100"]


def test_restore_of_nothing(gan, tmp_path):
    assert Checkpoint(tmp_path / "checkpoints", every=10).restore(gan) == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "state", "missing"])
def test_damaged_checkpoint_falls_back(gan, tmp_path, capsys, damage):
    checkpoint = Checkpoint(tmp_path, every=10)
    save(gan, checkpoint, 10, 20)
    weights = tmp_path / "step_00000020" / "model.weights.h5"
    if damage == "flip":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    elif damage == "cut":
        os.truncate(weights, weights.stat().st_size // 2)
    elif damage == "missing":
        weights.unlink()
    else:
        weights.with_name("state.json").write_text('{"step": 20')
    assert checkpoint.restore(gan) == 10
    assert "step_00000020 is damaged" in capsys.readouterr().err
    assert state(gan) == [10] * 7
    # The damaged one must not push out a good one.
    save(gan, checkpoint, 15)
    assert names(tmp_path) == ["step_00000010", "step_00000015"]


def test_all_checkpoints_damaged(gan, tmp_path):
    checkpoint = Checkpoint(tmp_path, every=10)
    save(gan, checkpoint, 10)
    (tmp_path / "step_00000010" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"all checkpoints .* are damaged"):
        checkpoint.restore(gan)


def test_leftovers_of_a_crash_are_removed(gan, tmp_path):
    checkpoint = Checkpoint(tmp_path, every=10)
    save(gan, checkpoint, 10)
    (tmp_path / "step_00000020.tmp").mkdir()
    (tmp_path / "step_00000020.tmp" / "model.weights.h5").write_bytes(b"half")
    assert checkpoint.restore(gan) == 10
    assert names(tmp_path) == ["step_00000010"]


def test_full_disk_leaves_the_last_checkpoint(gan, tmp_path):
    checkpoint = Checkpoint(tmp_path, every=10)
    save(gan, checkpoint, 10)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files cannot grow beyond this: the nearest to a full disk without being root.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="step 20 could not be written"):
            save(gan, checkpoint, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step_00000010"]
    assert checkpoint.restore(gan) == 10


def test_write_folder_replaces(tmp_path):
    folder = tmp_path / "preset"
    for text in ("old", "new"):
        with write_folder(folder) as temporary:
            (temporary / text).write_text(text)
    assert names(tmp_path) == ["preset"]
    assert names(folder) == ["new"]


def test_write_folder_keeps_the_old_on_failure(tmp_path):
    folder = tmp_path / "preset"
    folder.mkdir()
    with pytest.raises(ZeroDivisionError), write_folder(folder):
        raise ZeroDivisionError
    assert names(tmp_path) == ["preset"]


def test_sample_grid(gan, text_to_image_model, tmp_path):
    captions = ["an owl", "a tent", "a fox", "a pie"]
    callback = SampleGrid(tmp_path / "samples", 1, text_to_image_model, captions)
    callback.set_model(gan)
    callback.on_train_begin()
    first = callback.step + 1
    callback.on_train_batch_end(0)
    callback.on_train_batch_end(1)
    paths = sorted((tmp_path / "samples").iterdir())
    assert [p.name for p in paths] == [f"step_{first + i:06d}.png" for i in (0, 1)]
    grids = [np.asarray(Image.open(path)) for path in paths]
    assert grids[0].shape == (128, 128, 3)
    # Nothing was learned in between: same noise, same captions, same pictures.
    np.testing.assert_array_equal(grids[0], grids[1])


def test_a_short_run_gets_its_grid_at_the_end(gan, text_to_image_model, tmp_path):
    callback = SampleGrid(tmp_path, 1000, text_to_image_model, ["an owl"])
    callback.set_model(gan)
    callback.on_train_begin()
    callback.on_train_batch_end(0)
    assert list(tmp_path.iterdir()) == []
    callback.on_train_end()
    callback.on_train_end()
    assert [p.name for p in tmp_path.iterdir()] == [f"step_{callback.step:06d}.png"]


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, 2), (1e6, 0)])
def test_slow_steps_are_saved_by_the_clock(gan, tmp_path, seconds, saved):
    checkpoint = Checkpoint(tmp_path, every=1000, every_seconds=seconds)
    checkpoint.set_model(gan)
    set_state(gan, 1)
    checkpoint.on_train_begin()
    for step in (2, 3):
        set_state(gan, step)
        checkpoint.on_train_batch_end(0)
    assert len(list(tmp_path.iterdir())) == saved


def test_image_grid_is_laid_out_in_rows():
    images = np.arange(6, dtype="uint8")[:, None, None, None]
    images = np.broadcast_to(images, (6, 2, 2, 3))
    grid = np.asarray(image_grid(images, columns=3))
    assert grid.shape == (4, 6, 3)
    np.testing.assert_array_equal(grid[::2, ::2, 0], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_on_signal(gan, number):
    before = signal.getsignal(number)
    gan.stop_training = False
    with StopOnSignal() as stop:
        stop.set_model(gan)
        stop.on_train_batch_end(0)
        assert not gan.stop_training
        os.kill(os.getpid(), number)
        stop.on_train_batch_end(1)
        # The next one ends the process.
        assert signal.getsignal(number) == signal.SIG_DFL
    assert stop.received == number
    assert gan.stop_training
    assert signal.getsignal(number) == before


def test_progress_tells_step_rate_and_losses(gan, capsys):
    set_state(gan, 5)
    progress = Progress(last=7)
    progress.set_model(gan)
    progress.on_train_begin()
    progress.on_train_batch_end(0, {"d_real": 0.5})
    progress.on_train_batch_end(1, {"d_real": 0.25})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "step 6 of 7; d_real 0.5"
    assert second.startswith("step 7 of 7; ")
    assert second.endswith(" s a step, 0:00:00 left; d_real 0.25")


def test_state_is_plain_json(gan, tmp_path):
    save(gan, Checkpoint(tmp_path, every=10), 3)
    content = json.loads((tmp_path / "step_00000003" / "state.json").read_text())
    assert content["step"] == 3
    assert content["noise_seed"] == [7, 3]
