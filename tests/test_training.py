import json
import shutil

import numpy as np
import pytest
from drawn import draw_pictures
from PIL import Image

from galip_keras import GALIPTextToImage, MateD
from galip_keras.callbacks import Progress
from galip_keras.datasets import embeddings
from galip_keras.training import find_preset, load_model, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "dataset": f"folder:{draw_pictures(folder / 'circles')}",
        "data_dir": folder / "prepared",
    }


@pytest.fixture(scope="module")
def settings(data):
    return {
        **data,
        "preset": "galip_tiny",
        "batch_size": 2,
        "save_every": 1,
        "sample_every": 2,
        "precision": "float32",
        "seed": 3,
    }


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """Four steps, an epoch and a third, in one go."""
    return train(**settings, steps=4, run=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run's folder, to do things to."""
    return shutil.copytree(run.folder, tmp_path / "copy")


def weights(folder):
    """The weights of both networks in a run's preset, one array a network."""
    model = GALIPTextToImage.from_preset(str(folder / "preset"))
    discriminator = MateD.for_clip(model.backbone.clip)
    discriminator.load_weights(folder / "preset" / "discriminator.weights.h5")
    return [
        np.concatenate([np.ravel(weight) for weight in network.get_weights()])
        for network in (model.backbone.generator, discriminator)
    ]


def test_run_folder(run):
    assert run[1:] == (4, 4, None)
    names = {path.name for path in run.folder.iterdir()} - {"logs"}
    assert names == {
        "checkpoints", "config.json", "data_report.txt", "preset", "samples"
    }  # fmt: skip
    checkpoints = sorted(p.name for p in (run.folder / "checkpoints").iterdir())
    assert checkpoints == ["step_00000003", "step_00000004"]
    samples = sorted((run.folder / "samples").iterdir())
    assert [p.name for p in samples] == ["step_000002.png", "step_000004.png"]
    assert Image.open(samples[0]).size == (4 * 64, 4 * 64)


def test_config_holds_all_settings(run, settings):
    config = json.loads((run.folder / "config.json").read_text())
    versions = config.pop("versions")
    assert {"galip_keras", "keras", "backend"} <= versions.keys()
    expected = {**settings, "data_dir": str(settings["data_dir"])}
    unset = {"epochs": None, "clip": None, "captions": None, "allow_bad": False}
    assert config == {**expected, **unset, "steps": 4}


def test_resumed_run_is_the_same_run(run, copy, settings, capfd):
    # The newest checkpoint is damaged: the last step has to be done again.
    damaged = copy / "checkpoints" / "step_00000004" / "model.weights.h5"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    shutil.rmtree(copy / "preset")
    resumed = train(**settings, steps=4, run=copy, resume=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "step_00000004 is damaged" in captured.err
    assert "Resumed at step 3 of 4" in captured.err
    assert resumed.step == 4
    # Weights, optimizers, noise and data all have to continue where they were.
    for actual, expected in zip(weights(copy), weights(run.folder)):
        np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_finished_run_is_completed(copy, settings, capfd):
    before = weights(copy)
    shutil.rmtree(copy / "preset")
    with pytest.raises(ValueError, match="a run without preset/"):
        find_preset(copy)
    result = train(**settings, steps=4, run=copy, resume=True)
    assert (result.step, result.signal) == (4, None)
    assert "nothing to train" in capfd.readouterr().err
    for actual, expected in zip(weights(copy), before):
        np.testing.assert_array_equal(actual, expected)


def test_embeddings_change_the_losses_by_rounding_only(
    settings, tmp_path, monkeypatch, capfd
):
    """The first step's losses, with the cache of sentence embeddings and without."""
    seen = []

    def record(self, batch, logs):
        seen.append({name: float(loss) for name, loss in logs.items()})

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Progress, "on_train_batch_end", record)
    train(**settings, steps=1, run=tmp_path / "with")
    monkeypatch.setattr(embeddings, "cache", refuse)
    train(**settings, steps=1, run=tmp_path / "without")
    assert "cannot be written (Read-only file system)" in capfd.readouterr().err
    with_cache, without = seen
    assert with_cache != without
    for name, loss in without.items():
        # Sentence embeddings are rounded to 11 bits.
        assert with_cache[name] == pytest.approx(loss, rel=5e-3, abs=1e-4)


def test_fine_tuning_starts_from_the_preset(run, data, tmp_path):
    fine = train(
        **data,
        preset=str(run.folder),
        batch_size=2,
        # Not float16, which may skip the first steps until its loss scale fits.
        precision="mixed_bfloat16",
        steps=1,
        run=tmp_path / "fine",
    )
    for rate, actual, expected in zip(
        (1e-4, 4e-4), weights(fine.folder), weights(run.folder)
    ):
        change = np.max(np.abs(actual - expected))
        # A step of Adam moves a weight by about the learning rate at most.
        assert 0.1 * rate < change < 4 * rate


def test_existing_run_is_not_touched(copy, settings):
    before = (copy / "config.json").read_bytes()
    with pytest.raises(ValueError, match="not empty: go on with the run in it"):
        train(**settings, steps=4, run=copy)
    assert (copy / "config.json").read_bytes() == before


def test_resume_refuses_other_settings(copy, settings):
    changed = {**settings, "batch_size": 3, "seed": 4}
    message = "batch_size was 2 and is 3; seed was 3 and is 4"
    with pytest.raises(ValueError, match=message):
        train(**changed, steps=4, run=copy, resume=True)


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_resume_refuses_what_is_no_run(settings, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(**settings, steps=4, run=tmp_path, resume=True)


def test_unwritable_run_folder(settings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/run cannot be written \(Not a directory"):
        train(**settings, run=tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1, "steps": 1}, "epochs or steps, not both"),
        ({"batch_size": 0}, "batch_size must be at least 2, not 0"),
        ({"precision": "float16"}, "precision must be one of float32, "),
        ({"preset": "galip_huge"}, "unknown model 'galip_huge': give galip_vit_base"),
        ({"dataset": "folder:/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        train(**{**settings, **changes}, run=tmp_path / "run")
    # Nothing stands in the way of the corrected command.
    folder = tmp_path / "run"
    assert not folder.exists() or not any(folder.iterdir())


def test_dry_run_writes_no_run_folder(settings, tmp_path):
    plan = train(**settings, epochs=5, run=tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
    assert (plan["pictures"], plan["steps_per_epoch"], plan["total_steps"]) == (
        6,
        3,
        15,
    )
    assert plan["image_size"] == 64
    model = load_model("galip_tiny")
    total = model.backbone.count_params()
    assert plan["generator_parameters"] + plan["clip_parameters_frozen"] == total
    json.dumps(plan)


def test_preset_with_clip_is_refused(run):
    with pytest.raises(ValueError, match="brings its own CLIP"):
        load_model(str(run.folder), clip="random")


def test_folder_without_preset(tmp_path):
    with pytest.raises(ValueError, match="holds no preset"):
        load_model(str(tmp_path))
