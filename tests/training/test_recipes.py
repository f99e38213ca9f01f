"""What a recipe says of the settings that are left out, and what it freezes."""

import json

import keras
import numpy as np
import pytest
import tiny

from galip_keras.presets.fine_tuning import PAPER
from galip_keras.training.config import TrainingConfig, settings
from galip_keras.training.plan import frozen_layers
from galip_keras.training.recipes import FEW_IMAGES, RECIPES, defaults
from galip_keras.training.run import train

pytestmark = [pytest.mark.every_backend, pytest.mark.usefixtures("less_to_compile")]

# On the backend that compiles nothing: what is tested is the same on all.
once = pytest.mark.backend("torch")

FEW_SHOT = RECIPES["few-shot"]


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """The run folder of a model to fine-tune."""
    folder = tmp_path_factory.mktemp("start") / "run"
    train(**data, preset="galip_tiny", batch_size=2, steps=1, run=folder)
    return str(folder)


@pytest.fixture
def plan(data, start, tmp_path):
    """What a run would do, given some settings."""

    def make(**options):
        options = {"init": start, "steps": 2, "batch_size": 2, **options}
        return train(**data, run=tmp_path / "run", dry_run=True, **options)

    return make


def test_recipes_are_about_the_same_settings():
    assert settings()["recipe"].choices == tuple(RECIPES)
    assert FEW_SHOT.keys() == RECIPES["full"].keys() <= settings().keys()
    for recipe in RECIPES.values():
        TrainingConfig("toybirds", **recipe)


def test_full_changes_no_rate():
    assert PAPER.items() <= defaults("full", PAPER).items()
    fewer = defaults("few-shot", PAPER)
    for name, value in PAPER.items():
        assert fewer[name] < value if name.endswith("_lr") else fewer[name] == value


@once
def test_full_is_the_default(plan):
    assert plan() == plan(recipe="full")
    found = plan()
    assert (found["recipe"], found["freeze"], found["augmentation"]) == ("full", [], [])
    assert found["on_collapse"] == "continue"
    assert {name: found[name] for name in PAPER} == PAPER


@once
def test_the_plan_has_what_the_recipe_says(plan):
    found = plan(recipe="few-shot")
    assert found["recipe"] == "few-shot"
    expected = json.loads(json.dumps(defaults("few-shot", PAPER)))
    assert {name: found[name] for name in expected} == expected
    assert found["memory_gib"] <= plan()["memory_gib"]


@once
def test_given_settings_win(plan):
    given = {
        "freeze": ["bridge", "head"],
        "augmentation": ["color"],
        "on_collapse": "stop",
        "generator_lr": 1e-3,
    }
    found = plan(recipe="few-shot", **given)
    assert {name: found[name] for name in given} == given
    assert found["discriminator_lr"] < PAPER["discriminator_lr"]


@once
@pytest.mark.parametrize("nothing", [(), "none", ["none"]])
def test_nothing_can_be_given(plan, nothing):
    found = plan(recipe="few-shot", freeze=nothing, augmentation=nothing)
    assert (found["freeze"], found["augmentation"]) == ([], [])
    with pytest.raises(ValueError, match="freeze must be one of bridge, "):
        plan(freeze=["none", "bridge"])


@once
def test_few_shot_needs_a_model(plan, galip, data, start):
    with pytest.raises(ValueError, match="give the model to start from as `init`"):
        plan(recipe="few-shot", init=None, preset="galip_tiny")
    # A preset folder stands for itself.
    assert plan(recipe="few-shot", init=None, preset=start)["recipe"] == "few-shot"
    dataset = data["dataset"]
    code, _, errors = galip("train", "--dataset", dataset, "--recipe", "few-shot")
    assert (code, errors.count("\n")) == (1, 1)
    assert "the --recipe few-shot is for fine-tuning" in errors
    assert "as --init" in errors


@once
def test_a_run_keeps_its_recipe(plan, data, start, tmp_path):
    options = {"init": start, "recipe": "few-shot", "batch_size": 2}
    run = tmp_path / "run"
    expected = plan(**options)
    train(**data, **options, steps=1, run=run)
    content = json.loads((run / "config.json").read_text())
    for name in ("recipe", *defaults("few-shot", PAPER)):
        assert content[name] == expected[name]
    resumed = train(**data, **options, steps=2, run=run, resume=True)
    assert resumed.step == 2
    with pytest.raises(ValueError, match="recipe was few-shot and is full"):
        train(**data, **{**options, "recipe": None}, steps=3, run=run, resume=True)


@once
def test_few_images_suggest_a_recipe(plan, capfd, monkeypatch):
    def suggests(**options):
        capfd.readouterr()
        plan(**options)
        return "recipe few-shot is made for so few" in capfd.readouterr().err

    assert suggests()
    for said in ({"recipe": "full"}, {"freeze": ()}, {"augmentation": ["cutout"]}):
        assert not suggests(**said)
    assert not suggests(init=None, preset="galip_tiny")
    assert FEW_IMAGES > 6
    monkeypatch.setattr("galip_keras.training.run.FEW_IMAGES", 6)
    assert not suggests()


def test_the_command_line_gives_what_is_given(galip, monkeypatch):
    monkeypatch.setattr("galip_keras.training.run.train", dict)
    options = ["--recipe", "few-shot", "--freeze", "none", "--steps", "3"]
    code, output, _ = galip("train", "--dataset", "folder:x", *options)
    assert code == 0
    assert json.loads(output) == {
        "dataset": "folder:x",
        "recipe": "few-shot",
        "freeze": ["none"],
        "steps": 3,
    }


@pytest.mark.parametrize(
    "parts", [("bridge", "extractor"), ("prompts", "blocks", "head")]
)
def test_frozen_parts_get_no_update_and_no_memory(parts):
    gan = tiny.gan()
    networks = gan.generator, gan.discriminator
    layers = frozen_layers(*networks, parts)
    frozen = [v for layer in layers for v in layer.variables]
    others = frozen_layers(*networks, set(settings()["freeze"].choices) - set(parts))
    trained = [v for layer in others for v in layer.variables]
    # The parts are all that is trained.
    assert len(frozen) + len(trained) == len(gan.trainable_variables)
    for layer in layers:
        layer.trainable = False
    gan.compile(**tiny.FEW_STEPS)
    before = tiny.values(frozen), tiny.values(trained)
    gan.fit(tiny.batch(8), batch_size=4, verbose=0)
    for variable, value in zip(frozen, before[0]):
        assert np.array_equal(keras.ops.convert_to_numpy(variable), value)
    for variable, value in zip(trained, before[1]):
        assert not np.array_equal(keras.ops.convert_to_numpy(variable), value)
    optimizers = gan.optimizer.generator, gan.optimizer.discriminator
    numbers = sum(np.prod(v.shape) for x in optimizers for v in x.variables)
    # Two moments of each, and the steps and the rate of either optimizer.
    assert numbers == 2 * sum(np.prod(v.shape) for v in trained) + 4
