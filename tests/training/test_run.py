import contextlib
import json
import os
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from galip_keras import GALIPTextToImage, MateD, evaluate
from galip_keras.datasets import embeddings
from galip_keras.models.architectures import ARCHITECTURES
from galip_keras.presets import card
from galip_keras.presets.loading import find_preset, load_model
from galip_keras.training import memory
from galip_keras.training.config import TrainingConfig
from galip_keras.training.config import settings as config_fields
from galip_keras.training.loop import Loop
from galip_keras.training.plan import learning_rates
from galip_keras.training.progress import Progress, training_step
from galip_keras.training.run import train

pytestmark = [pytest.mark.every_backend, pytest.mark.usefixtures("less_to_compile")]

# On the backend that compiles nothing: what is tested is the same on all.
once = pytest.mark.backend("torch")


@pytest.fixture(scope="module")
def settings(data):
    return {
        **data,
        "preset": "galip_tiny",
        "batch_size": 2,
        "save_every": 1,
        "sample_every": 2,
        "report_every": 2,
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


def reports(folder):
    """The losses of each report."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["d_real"] for line in lines if "d_real" in line]


def test_run_folder(run):
    assert run[1:] == (4, 4, None, False, None)
    names = {path.name for path in run.folder.iterdir()} - {"logs"}
    assert names == {
        "checkpoints", "config.json", "data_report.txt", "metrics.jsonl", "preset",
        "samples",
    }  # fmt: skip
    checkpoints = sorted(p.name for p in (run.folder / "checkpoints").iterdir())
    assert checkpoints[-2:] == ["step_00000003", "step_00000004"]
    assert [name[:-1] for name in checkpoints[:-2]] == ["best_0000000"]
    samples = sorted((run.folder / "samples").iterdir())
    assert [p.name for p in samples] == ["step_000002.png", "step_000004.png"]
    assert Image.open(samples[0]).size == (4 * 32, 4 * 32)


def test_config_holds_all_settings(run, settings):
    config = json.loads((run.folder / "config.json").read_text())
    assert config.pop("data")["images"] == 6
    versions = config.pop("versions")
    assert {"galip_keras", "keras", "backend"} <= versions.keys()
    expected = {**settings, "data_dir": str(settings["data_dir"])}
    assert expected.items() <= config.items()
    assert list(config) == list(config_fields())
    assert config["steps"] == 4


def test_resumed_run_is_the_same_run(run, copy, settings, capfd):
    # The newest checkpoint is damaged: the last step has to be done again.
    # It may be the best one as well.
    for damaged in (copy / "checkpoints").glob("*_00000004/model.weights.h5"):
        damaged.write_bytes(damaged.read_bytes()[:-1])
    shutil.rmtree(copy / "preset")
    resumed = train(**settings, steps=4, run=copy, resume=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "step_00000004 is damaged" in captured.err
    assert "Resumed at step 3 of 4" in captured.err
    assert resumed.step == 4
    # Weights, optimizers, noise and data all have to continue where they were.
    # PyTorch's threads do not always add in the same order.
    tolerance = 2e-6 if keras.backend.backend() == "torch" else 0
    for actual, expected in zip(weights(copy), weights(run.folder)):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
    assert reports(copy) == pytest.approx(reports(run.folder), rel=10 * tolerance)


def test_the_card_of_a_run(run, data):
    text = card.read(run.folder / "preset")
    assert "The architecture `galip_tiny`, trained with galip-keras" in text
    assert "4 steps of " in text
    assert "captioned images of `circles`" in text
    assert "random weights" in text
    backbone = load_model(str(run.folder)).backbone
    own = backbone.count_params() - backbone.clip.count_params()
    assert f"{own:,} parameters on a frozen CLIP" in text
    assert str(run.folder) not in text
    assert str(data["data_dir"]) not in text
    figures = card.read_origin(run.folder / "preset")["figures"]
    (line,) = [
        json.loads(line)
        for line in (run.folder / "metrics.jsonl").read_text().splitlines()
        if '"step": 4, "cmmd"' in line
    ]
    assert figures == {k: v for k, v in line.items() if k != "step"}


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


@once
def test_embeddings_change_the_losses_by_rounding_only(
    settings, tmp_path, monkeypatch, capfd
):
    """The first step's losses, with the cache of text embeddings and without."""
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
        # Text embeddings are rounded to 11 bits.
        assert with_cache[name] == pytest.approx(loss, rel=5e-3, abs=1e-4)


@once
def test_fine_tuning_starts_from_the_preset(run, data, tmp_path):
    fine = train(
        **data,
        init=str(run.folder),
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


@once
def test_fine_tuning_goes_on_with_the_rates_and_weights(copy, data, tmp_path):
    run = tmp_path / "run"
    settings = {**data, "init": str(copy), "steps": 1, "run": run, "dry_run": True}
    path = copy / "preset" / "training.json"
    own = json.loads(path.read_text())
    path.write_text(json.dumps({**own, "range_weight": 3.0, "generator_lr": 1e-5}))
    plan = train(**settings, generator_lr=2e-5)
    expected = {**own, "range_weight": 3.0, "generator_lr": 2e-5}
    assert {name: plan[name] for name in own} == expected
    # A preset of an earlier version.
    assert own.pop("energy_weight") == 0
    path.write_text(json.dumps(own))
    assert train(**settings)["energy_weight"] == 0
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"training\.json is damaged"):
        train(**settings)


@once
def test_frozen_parts_stay_as_they_are(run, data, tmp_path):
    frozen = train(
        **data,
        init=str(run.folder),
        batch_size=2,
        freeze=("bridge", "extractor"),
        average=0,
        steps=1,
        run=tmp_path / "frozen",
    )
    before, after = (dict(parts(r.folder)) for r in (run, frozen))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        is_frozen = name.startswith(("bridge_predictor", "tap_block", "narrow_block"))
        is_same = np.array_equal(weight, after[name])
        assert is_same == is_frozen or (is_same and not weight.any()), name


@once
def test_no_prompts_to_freeze(settings, tmp_path, monkeypatch):
    spec = ARCHITECTURES["galip_tiny"]
    generator = {**spec["generator"], "prompt_layers": ()}
    monkeypatch.setitem(ARCHITECTURES, "galip_tiny", {**spec, "generator": generator})
    with pytest.raises(ValueError, match="this model has no prompts to freeze"):
        train(**settings, freeze=("prompts",), steps=1, run=tmp_path / "run")


def parts(folder):
    """First weights of the parts of both networks in a run's preset, by path."""
    model = GALIPTextToImage.from_preset(str(folder / "preset"))
    discriminator = MateD.for_clip(model.backbone.clip)
    discriminator.load_weights(folder / "preset" / "discriminator.weights.h5")
    generator = model.backbone.generator
    for layer in (
        generator.bridge_predictor,
        generator.prompt_predictor,
        generator.to_rgb,
        *discriminator.tap_blocks,
        discriminator.narrow_block,
        discriminator.head_conv_1,
    ):
        yield layer.name, keras.ops.convert_to_numpy(layer.trainable_variables[0])


@once
def test_accumulated_steps_make_one_update(run, data, tmp_path):
    settings = {
        **data,
        "init": str(run.folder),
        "batch_size": 2,
        "accumulate": 2,
        "average": 0,
        "run": tmp_path / "run",
    }
    train(**settings, steps=1)
    for actual, expected in zip(weights(tmp_path / "run"), weights(run.folder)):
        np.testing.assert_array_equal(actual, expected)
    # The gradients of the first step are in the checkpoint.
    train(**settings, steps=2, resume=True)
    for rate, actual, expected in zip(
        (1e-4, 4e-4), weights(tmp_path / "run"), weights(run.folder)
    ):
        assert 0.1 * rate < np.max(np.abs(actual - expected)) < 4 * rate


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_steps": 20}, [0, 0.5, 1, 1]),
        ({"schedule": "cosine"}, [1, 0.976, 0.5, 0]),
    ],
)
def test_schedules(changes, expected):
    schedule = learning_rates(1.0, TrainingConfig("toybirds", **changes), 100)
    rates = [float(schedule(step)) for step in (0, 10, 50, 100)]
    assert rates == pytest.approx(expected, abs=1e-3)


@once
def test_learning_rates_by_the_batch_size(settings, tmp_path):
    changes = {"base_batch_size": 16, "accumulate": 2, "report_every": 1}
    result = train(**{**settings, **changes}, steps=1, run=tmp_path / "run")
    line = json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[0])
    # Two images twice instead of sixteen.
    assert line["g_learning_rate"] == pytest.approx(0.5e-4)
    assert line["d_learning_rate"] == pytest.approx(2e-4)


@once
def test_time_is_up(settings, tmp_path):
    result = train(**settings, steps=1000, max_hours=1e-9, run=tmp_path / "run")
    assert (result.step, result.is_late, result.signal) == (1, True, None)
    assert find_preset(result.folder)


class Disturbance(keras.callbacks.Callback):
    """Blows the discriminator up before the fifth step, as often as it has `times`."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def on_train_batch_begin(self, batch, logs=None):
        if training_step(self.model) == 4 and self.times:
            self.times -= 1
            kernel = self.model.discriminator.head_conv_2.kernel
            kernel.assign(100.0 * kernel)


@pytest.fixture
def collapse(settings, tmp_path, monkeypatch):
    """Train six steps. The gradient penalty explodes in the fifth, `times` times."""

    def run(on_collapse, times=1):
        callbacks, disturbance = Loop._callbacks, Disturbance(times)
        monkeypatch.setattr(
            Loop, "_callbacks", lambda loop: [*callbacks(loop), disturbance]
        )
        changes = {"report_every": 5, "sample_every": 2, "on_collapse": on_collapse}
        return train(**{**settings, **changes}, steps=6, run=tmp_path / "run")

    return run


def events(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(x["event"], x["step"]) for x in lines if "event" in x]


@once
def test_collapse_continues(collapse, capfd):
    result = collapse("continue")
    assert (result.step, result.collapse) == (6, None)
    assert "Warning: the gradient penalty exploded to" in capfd.readouterr().err
    assert events(result.folder) == [("warning", 5)]


@once
def test_collapse_stops(collapse):
    result = collapse("stop")
    assert result.collapse.startswith("the gradient penalty exploded to")
    assert result.step == 5
    # The best one is what is left, also as the preset.
    (best,) = (result.folder / "checkpoints").glob("best_*")
    assert best.name in ("best_00000002", "best_00000004")
    assert events(result.folder) == [("collapse", 5)]
    assert find_preset(result.folder)


@once
def test_collapse_rolls_back(collapse, capfd):
    result = collapse("rollback")
    assert (result.step, result.collapse) == (6, None)
    (wrong, back) = events(result.folder)
    assert wrong == ("collapse", 5)
    assert back[0] == "rollback"
    assert back[1] in (2, 4)
    assert "learning rates times 0.5" in capfd.readouterr().err
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    last = [x for x in map(json.loads, lines) if "g_learning_rate" in x][-1]
    assert last["step"] == 6
    assert last["g_learning_rate"] == pytest.approx(0.5e-4)
    state = result.folder / "checkpoints" / "step_00000006" / "state.json"
    assert json.loads(state.read_text())["guard"]["rollbacks"] == 1


@once
def test_collapse_again_and_again(collapse, capfd):
    result = collapse("rollback", times=100)
    assert result.collapse.startswith("the gradient penalty exploded to")
    assert "rolled back 3 times: stopping" in capfd.readouterr().err


@once
def test_real_overflow_is_noticed(settings, tmp_path, capfd):
    changes = {"report_every": 1, "generator_lr": 1e30, "on_collapse": "continue"}
    result = train(**{**settings, **changes}, steps=50, run=tmp_path / "run")
    assert "not a number" in result.collapse
    assert result.step < 50


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


@once
def test_changed_data_are_told_and_asked_for(settings, tmp_path, capfd):
    folder = shutil.copytree(settings["dataset"].partition(":")[2], tmp_path / "images")
    changed = {**settings, "dataset": f"folder:{folder}", "run": tmp_path / "run"}
    train(**changed, steps=1)
    # A copy elsewhere has the same contents, but other times.
    moved = folder.rename(tmp_path / "moved")
    for file in moved.iterdir():
        os.utime(file, (1, 1))
    changed["dataset"] = f"folder:{moved}"
    capfd.readouterr()
    train(**changed, steps=1, resume=True)
    assert "The data have moved, unchanged: dataset was" in capfd.readouterr().err
    first = sorted(moved.glob("*.png"))[0]
    first.write_bytes(b"broken")
    changed["allow_bad"] = True
    for dry_run in (True, False):
        with pytest.raises(ValueError, match=r"6 images then, 5 now\).*`allow_changed"):
            train(**changed, steps=1, resume=True, dry_run=dry_run)
    report = tmp_path / "run" / "data_report.txt"
    assert report.read_text() == "nothing was left out\n"
    train(**changed, steps=1, resume=True, allow_changed_data=True)
    errors = capfd.readouterr().err
    assert "Warning: the images or captions have changed" in errors
    assert f"Data: skipped 1 image: cannot be read: {first.name}" in errors
    assert first.name in report.read_text()
    # From now on these are the data of the run.
    train(**changed, steps=1, resume=True)
    assert "changed" not in capfd.readouterr().err


@once
def test_an_older_run_lacks_settings(copy, settings, capfd):
    path = copy / "config.json"
    content = json.loads(path.read_text())
    for name in ("range_weight", "data", "dataset"):
        del content[name]
    path.write_text(json.dumps(content))
    train(**settings, steps=4, run=copy, resume=True)
    assert "without dataset, range_weight: the run goes on" in capfd.readouterr().err
    assert json.loads(path.read_text())["range_weight"] == 0


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
        ({"schedule": "linear"}, "schedule must be one of constant, cosine"),
        ({"hard_mismatches": 1.5}, "hard_mismatches must be at most 1, not 1.5"),
        ({"augmentation": ["flip"]}, "augmentation must be one of color, "),
        ({"freeze": ["clip"]}, "freeze must be one of bridge, "),
        ({"generator_lr": 0.0}, "generator_lr must be more than 0"),
        ({"num_devices": 3}, "3 devices cannot share 2 images per step"),
        ({"precision": "float16"}, "precision must be one of float32, "),
        (
            {"preset": "galip_huge"},
            "unknown model 'galip_huge': give toybirds, galip_coco, ",
        ),
        ({"dataset": "folder:/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_work(settings, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        train(**{**settings, **changes}, run=tmp_path / "run")
    # Nothing stands in the way of the corrected command.
    assert not (tmp_path / "run").exists()


def test_dry_run_writes_no_run_folder(settings, tmp_path):
    plan = train(**settings, epochs=5, run=tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
    assert (plan["pictures"], plan["steps_per_epoch"], plan["total_steps"]) == (
        6,
        3,
        15,
    )
    assert plan["image_size"] == 32
    model = load_model("galip_tiny")
    total = model.backbone.count_params()
    assert plan["generator_parameters"] + plan["clip_parameters_frozen"] == total
    # Weights, gradients, two moments and the average are the least.
    assert plan["memory_gib"] > 5 * 4 * plan["generator_parameters"] / 2**30
    json.dumps(plan)


def test_dry_run_looks_at_folder_and_devices(copy, settings):
    with pytest.raises(ValueError, match="is not empty"):
        train(**settings, steps=4, run=copy, dry_run=True)
    before = (copy / "config.json").read_bytes()
    plan = train(**settings, steps=5, run=copy, resume=True, dry_run=True)
    assert plan["total_steps"] == 5
    assert (copy / "config.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"2 devices were asked|on one device"):
        train(**settings, steps=4, num_devices=2, dry_run=True)


def test_preset_with_clip_is_refused(run):
    with pytest.raises(ValueError, match="brings its own CLIP"):
        load_model(str(run.folder), clip="random")


@once
def test_memory_is_trimmed_once_a_run(settings, tmp_path, monkeypatch):
    events = []

    @contextlib.contextmanager
    def trimmed():
        events.append("begin")
        yield
        events.append("end")

    monkeypatch.setattr(memory, "trimmed", trimmed)
    train(**settings, steps=2, run=tmp_path / "run")
    assert events == ["begin", "end"]


def test_folder_without_preset(tmp_path):
    with pytest.raises(ValueError, match=r"holds no preset: there is no config\.json"):
        load_model(str(tmp_path))


@once
def test_evaluations_as_training_goes_on(settings, tmp_path):
    options = {"evaluate_every": 2, "evaluate_images": 8}
    run = train(**settings, **options, steps=3, run=tmp_path / "run")
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    figures = {
        line["step"]: line
        for line in map(json.loads, lines)
        if "evaluation_fid" in line
    }
    assert list(figures) == [2, 3]
    report = json.loads((run.folder / "evaluation" / "step_000003.json").read_text())
    # It is the averaged generator that is judged, the one of the preset.
    again = evaluate(
        str(run.folder),
        settings["dataset"],
        num_images=8,
        data_dir=settings["data_dir"],
    )
    for figure, expected in zip(report["figures"], again["figures"]):
        assert figure["value"] == pytest.approx(expected["value"], rel=1e-3)
        name = f"evaluation_{figure['metric']}"
        assert figures[3][name] == figure["value"]
