import json
import os
import resource

import numpy as np
import pytest

from galip_keras import GALIP
from galip_keras.files import write_folder
from galip_keras.models import text_to_image
from galip_keras.training import checkpoints
from galip_keras.training.checkpoints import Checkpoint
from galip_keras.training.collapse import Guard
from galip_keras.training.progress import training_step

pytestmark = pytest.mark.every_backend


@pytest.fixture(scope="module")
def gan():
    model = text_to_image.build("galip_tiny")
    gan = GALIP(model.backbone.generator, average=True)
    gan.compile()
    return gan


def checkpoint_in(folder, every):
    return Checkpoint(folder, every, Guard())


def set_state(gan, step):
    """Stand in for training: every kind of state becomes a function of the step."""
    for optimizer in (gan.optimizer.generator, gan.optimizer.discriminator):
        optimizer.iterations.assign(step)
        momentum = optimizer.variables[-1]
        momentum.assign(np.full(momentum.shape, step, "float32"))
    gan.step.assign(step)
    gan.seed_generator.state.assign([7, step])
    gan.trackers[0].total.assign(step)
    for weight in first_weights(gan):
        weight.assign(np.full(weight.shape, step, "float32"))


def first_weights(gan):
    # Of the averaged generator nothing is trainable; the first of its own come after
    # those of CLIP.
    frozen = {id(variable) for variable in gan.clip.variables}
    networks = (gan.generator, gan.discriminator, gan.averaged_generator)
    return [next(v for v in n.variables if id(v) not in frozen) for n in networks]


def state(gan):
    optimizers = (gan.optimizer.generator, gan.optimizer.discriminator)
    return [
        training_step(gan),
        float(gan.trackers[0].total),
        *(int(optimizer.iterations) for optimizer in optimizers),
        *(float(np.mean(optimizer.variables[-1])) for optimizer in optimizers),
        int(gan.seed_generator.state[1]),
        *(float(np.mean(weight)) for weight in first_weights(gan)),
    ]


def save(gan, checkpoint, *steps):
    for step in steps:
        set_state(gan, step)
        checkpoint.save(gan)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_restores_every_state(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    save(gan, checkpoint, 30)
    set_state(gan, 1)
    assert checkpoint.restore(gan) == 30
    assert state(gan) == [30] * 10


def test_checkpoint_keeps_the_newest(gan, tmp_path):
    save(gan, checkpoint_in(tmp_path, every=10), 9, 10, 100)
    assert names(tmp_path) == ["step_00000010", "step_00000100"]


def test_restore_of_nothing(gan, tmp_path):
    assert checkpoint_in(tmp_path / "checkpoints", every=10).restore(gan) == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "state", "missing"])
def test_damaged_checkpoint_falls_back(gan, tmp_path, capsys, damage):
    checkpoint = checkpoint_in(tmp_path, every=10)
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
    assert state(gan) == [10] * 10
    # The damaged one must not push out a good one.
    save(gan, checkpoint, 15)
    assert names(tmp_path) == ["step_00000010", "step_00000015"]


def test_all_checkpoints_damaged(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    save(gan, checkpoint, 10)
    (tmp_path / "step_00000010" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"all checkpoints .* are damaged"):
        checkpoint.restore(gan)


def test_leftovers_of_a_crash_are_removed(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    save(gan, checkpoint, 10)
    (tmp_path / "step_00000020.tmp").mkdir()
    (tmp_path / "step_00000020.tmp" / "model.weights.h5").write_bytes(b"half")
    assert checkpoint.restore(gan) == 10
    assert names(tmp_path) == ["step_00000010"]


def test_full_disk_leaves_the_last_checkpoint(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
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


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, 2), (1e6, 0)])
def test_slow_steps_are_saved_by_the_clock(gan, tmp_path, monkeypatch, seconds, saved):
    monkeypatch.setattr(checkpoints, "_LONGEST", seconds)
    checkpoint = checkpoint_in(tmp_path, every=1000)
    checkpoint.set_model(gan)
    set_state(gan, 1)
    checkpoint.on_train_begin()
    for step in (2, 3):
        set_state(gan, step)
        checkpoint.on_train_batch_end(0)
    assert len(list(tmp_path.iterdir())) == saved


def test_state_is_plain_json(gan, tmp_path):
    save(gan, checkpoint_in(tmp_path, every=10), 3)
    content = json.loads((tmp_path / "step_00000003" / "state.json").read_text())
    assert content["step"] == 3
    assert content["variables"][0] == [7, 3]
    assert content["guard"]["rollbacks"] == 0


def test_the_best_is_kept_beside_the_newest(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    for step in (10, 20):
        set_state(gan, step)
        checkpoint.guard.state["best_step"] = step
        checkpoint.save_best(gan)
    save(gan, checkpoint, 30, 35, 40)
    assert names(tmp_path) == ["best_00000020", "step_00000035", "step_00000040"]
    fresh = checkpoint_in(tmp_path, every=10)
    assert fresh.restore(gan) == 40
    assert fresh.restore_best(gan) == 20
    assert state(gan) == [20] * 10
    # What the guard knew comes back as well.
    assert fresh.guard.state["best_step"] == 20


def test_the_best_is_the_last_resort(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    set_state(gan, 10)
    checkpoint.save_best(gan)
    save(gan, checkpoint, 20)
    (tmp_path / "step_00000020" / "state.json").unlink()
    assert checkpoint.restore(gan) == 10


def test_going_back_drops_what_is_newer_than_the_best(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    save(gan, checkpoint, 10)
    set_state(gan, 20)
    checkpoint.save_best(gan)
    save(gan, checkpoint, 30)
    assert checkpoint.drop_after_best()
    assert names(tmp_path) == ["best_00000020", "step_00000010"]
    assert checkpoint.restore(gan) == 20


def test_weights_that_are_not_numbers_are_not_saved(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    save(gan, checkpoint, 10)
    set_state(gan, 20)
    weight = first_weights(gan)[0]
    weight.assign(np.full(weight.shape, np.nan, "float32"))
    checkpoint.save(gan)
    assert names(tmp_path) == ["step_00000010"]
    assert checkpoint.guard.is_final
    assert gan.stop_training


def test_metrics_survive_the_reset_of_fit(gan, tmp_path):
    checkpoint = checkpoint_in(tmp_path, every=10)
    save(gan, checkpoint, 10)
    set_state(gan, 0)
    checkpoint.restore(gan)
    checkpoint.set_model(gan)
    checkpoint.on_train_begin()
    gan.reset_metrics()
    checkpoint.on_epoch_begin(0)
    assert float(gan.trackers[0].total) == 10
