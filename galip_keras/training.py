"""A training run: data, model, callbacks and the folder that holds its results.

config.json       everything needed to do it again
checkpoints/      complete states to resume from
samples/          pictures of the same noise and captions, as training goes on
logs/             losses for TensorBoard
data_report.txt   what was odd about the data
preset/           the generator, for `GALIPTextToImage.from_preset`
"""

import json
import math
import os
import platform
import tempfile
from pathlib import Path
from typing import NamedTuple

import keras
import keras_hub

from galip_keras import __version__, backend, datasets
from galip_keras.callbacks import (
    Checkpoint,
    Progress,
    SampleGrid,
    StopAt,
    StopOnSignal,
    say,
    training_step,
    write_folder,
)
from galip_keras.clip import first_words
from galip_keras.gan import GALIP
from galip_keras.mate_d import MateD
from galip_keras.text_to_image import ARCHITECTURES, GALIPTextToImage, build

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

_CONFIG = "config.json"
_PRESET = "preset"
_DISCRIMINATOR = "discriminator.weights.h5"
_SAMPLES = 16

# A run that is resumed goes on as it began. Other settings, such as its length, may
# change.
_FIXED = ("dataset", "preset", "clip", "batch_size", "precision", "seed", "captions")


class Run(NamedTuple):
    """What `train` did.

    `folder` is the run folder, `step` the last training step and `steps` the step that
    was aimed at. `signal` is the number of the signal that stopped it early, or None.
    """

    folder: Path
    step: int
    steps: int
    signal: int | None


def train(
    dataset,
    preset="galip_vit_base_patch32",
    run=None,
    clip=None,
    resume=False,
    epochs=None,
    steps=None,
    batch_size=32,
    precision="float32",
    seed=0,
    data_dir=None,
    captions=None,
    allow_bad=False,
    save_every=100,
    sample_every=100,
    dry_run=False,
):
    """Trains a GALIP on pictures with captions. Tells its progress on standard error.

    Ctrl-C and SIGTERM stop it after the running step, with everything saved.

    Args:
        dataset: string. As for `galip_keras.datasets.prepare`.
        preset: string. An architecture to train from scratch or, for fine-tuning, what
            `load_model` takes.
        run: path. The run folder. Defaults to `runs/` and the name of the data set.
        clip: string. For an architecture: `"random"`, or a keras-hub preset, hub handle
            or preset folder of a CLIP. Defaults to the architecture's own.
        resume: bool. Go on with the run that is in the run folder, if there is one.
        epochs: int. Passes over the data. Defaults to 100 where `steps` is not given.
        steps: int. Training steps, instead of `epochs`.
        batch_size: int.
        precision: string. `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.
        seed: int. Seed of the first weights, of the noise and of the order of the data.
        data_dir: path. Where prepared data sets live.
        captions: path. As for `galip_keras.datasets.prepare`.
        allow_bad: bool. As for `galip_keras.datasets.prepare`.
        save_every: int. Steps from one checkpoint to the next; two minutes at most.
        sample_every: int. Steps from one grid of samples to the next.
        dry_run: bool. Check everything and train nothing. The data set is prepared, but
            no run folder is written.

    Returns:
        A `Run`, or the plan as a dict where `dry_run` is true.

    Raises:
        ValueError: for settings that cannot work or that a resumed run did not have.
        OSError: where the run folder cannot be written.

    Example:

    ```python
    run = galip_keras.train("folder:birds", preset="galip_tiny", steps=100)
    model = galip_keras.GALIPTextToImage.from_preset(str(run.folder / "preset"))
    ```
    """
    settings = {
        "dataset": _absolute_source(dataset),
        "preset": _absolute(preset),
        "clip": _absolute(clip) if clip else None,
        "epochs": 100 if epochs is None and steps is None else epochs,
        "steps": steps,
        "batch_size": batch_size,
        "precision": precision,
        "seed": seed,
        "data_dir": _absolute_path(data_dir),
        "captions": _absolute_path(captions),
        "allow_bad": allow_bad,
        "save_every": save_every,
        "sample_every": sample_every,
    }
    _check_settings(settings)
    folder = Path(run or Path("runs", _dataset_name(dataset))).absolute()
    if not dry_run:
        _open(folder, settings, resume)
    if preset not in ARCHITECTURES:
        find_preset(preset)
    data = {name: settings[name] for name in ("data_dir", "captions", "allow_bad")}
    builder = datasets.prepare(dataset, **data)
    keras.utils.set_random_seed(seed)
    model = load_model(preset, clip)
    if model.preprocessor is None:
        raise ValueError(f"{preset} has no tokenizer: captions cannot be read")
    discriminator = _discriminator(model, preset)
    plan = _plan(settings, builder)
    if dry_run:
        return {"run": str(folder), **settings, **plan, **describe(model)}
    _warn_of_random_clip(preset, clip)
    _write_start(folder, settings, builder)
    # Before the precision is set: sentences are embedded in float32.
    embeddings = _embeddings(builder, model)
    gan = _assemble(model, discriminator, precision, seed)
    return _run(folder, settings, plan, builder, embeddings, model, gan, resume)


def load_model(source, clip=None):
    """Builds or loads a model, whatever it is called.

    Args:
        source: string. A key of `galip_keras.text_to_image.ARCHITECTURES`, a run
            folder, a preset folder, or a handle such as `"hf://user/model"`.
        clip: string. For an architecture, as `text_to_image.build` takes it.

    Returns:
        A `GALIPTextToImage`.

    Raises:
        ValueError: where there is no such model or it cannot be loaded.
    """
    if source in ARCHITECTURES:
        return build(source, clip)
    if clip:
        raise ValueError(f"{source} brings its own CLIP: leave the clip out")
    preset = find_preset(source)
    try:
        return GALIPTextToImage.from_preset(preset)
    except Exception as error:
        message = f"{source} could not be loaded ({first_words(error)})"
        raise ValueError(message) from error


def find_preset(source):
    """The preset that keras-hub reads: the one inside where `source` is a run folder.

    Raises:
        ValueError: where there is none.
    """
    if "://" in str(source):
        return source
    folder = Path(source)
    if (folder / "checkpoints").is_dir() or (folder / _PRESET).is_dir():
        if not (folder / _PRESET / _CONFIG).is_file():
            raise ValueError(
                f"{source} is a run without preset/, which is written when training "
                "ends: resume it, or give another model"
            )
        folder = folder / _PRESET
    if not folder.exists():
        known = ", ".join(ARCHITECTURES)
        raise ValueError(
            f"unknown model {source!r}: give {known}, a preset folder, a run folder or "
            "a handle such as hf://USER/MODEL"
        )
    if not (folder / _CONFIG).is_file():
        raise ValueError(f"{source} holds no preset: there is no {_CONFIG} in it")
    return str(folder)


def describe(model):
    """Sizes and parameter counts of a `GALIPTextToImage`, as a dict of plain values."""
    generator, clip = model.backbone.generator, model.backbone.clip
    return {
        "image_size": generator.image_size,
        "latent_dim": generator.latent_dim,
        "base_channels": generator.base_channels,
        "prompt_layers": list(generator.prompt_layers),
        "clip_image_size": clip.image_size,
        "clip_grid_size": clip.grid_size,
        "clip_hidden_dim": clip.hidden_dim,
        "clip_num_layers": clip.num_layers,
        "clip_embedding_dim": clip.embedding_dim,
        "clip_feature_layers": list(clip.feature_layers),
        "clip_pixel_scaling": clip.pixel_scaling,
        "generator_parameters": _count(generator.trainable_variables),
        "discriminator_parameters": _count(MateD.for_clip(clip).trainable_variables),
        "clip_parameters_frozen": _count(clip.variables),
    }


def _count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def _absolute(source):
    """A source with its path made absolute, where it is one that exists."""
    if source in (*ARCHITECTURES, "random"):
        return source
    path = os.path.expanduser(str(source))
    return os.path.abspath(path) if os.path.exists(path) else str(source)


def _absolute_source(dataset):
    name, colon, source = str(dataset).partition(":")
    return f"{name}:{_absolute(source)}" if colon and source else name


def _absolute_path(path):
    return str(Path(path).expanduser().absolute()) if path else None


def _dataset_name(dataset):
    name, _, source = str(dataset).partition(":")
    return Path(source).expanduser().resolve().name if name == "folder" else name


def _check_settings(settings):
    if settings["epochs"] is not None and settings["steps"] is not None:
        raise ValueError("give epochs or steps, not both")
    # The mismatched sentence of a picture is that of its neighbour in the batch.
    least = {"batch_size": 2, "epochs": 1, "steps": 1, "save_every": 1}
    for name, value in {**least, "sample_every": 1}.items():
        if settings[name] is not None and settings[name] < value:
            raise ValueError(f"{name} must be at least {value}, not {settings[name]}")
    if settings["precision"] not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")


def _open(folder, settings, resume):
    """Makes sure that the run folder can be written and may be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise OSError(
            f"the run folder {folder} cannot be written ({error.strerror}): "
            "give another --run"
        ) from error
    if is_empty:
        return
    if not resume:
        raise ValueError(
            f"the run folder {folder} is not empty: go on with the run in it with "
            "--resume, or give another --run"
        )
    _check_unchanged(folder, settings)


def _check_unchanged(folder, settings):
    try:
        old = json.loads((folder / _CONFIG).read_text())
        changes = [
            f"{name} was {old[name]} and is {settings[name]}"
            for name in _FIXED
            if old[name] != settings[name]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} holds no run to resume: {_CONFIG} is missing or damaged"
        ) from error
    if changes:
        raise ValueError(
            f"the run in {folder} has other settings: {'; '.join(changes)}. Resume it "
            "with its own, or give another --run"
        )


def _discriminator(model, preset):
    """A new discriminator, or to fine-tune a preset the one that lies in it."""
    discriminator = MateD.for_clip(model.backbone.clip)
    if preset not in ARCHITECTURES:
        weights = Path(find_preset(preset)) / _DISCRIMINATOR
        if weights.is_file():
            discriminator.load_weights(weights)
        else:
            say(f"{preset} has no {_DISCRIMINATOR}: fine-tuning starts with a new one.")
    return discriminator


def _embeddings(builder, model):
    """The files of the captions' embeddings, or None where none can be written."""
    from galip_keras.datasets import embeddings

    try:
        return embeddings.cache(builder, model.backbone.clip, model.preprocessor)
    except OSError as error:
        say(
            f"Captions are embedded at every step: {builder.data_path} cannot be "
            f"written ({error.strerror})."
        )
        return None


def _assemble(model, discriminator, precision, seed):
    """The GAN of a model's generator and a discriminator, compiled."""
    for network in (model.backbone, discriminator):
        set_precision(network, precision)
    gan = GALIP(model.backbone.generator, discriminator, seed=seed)
    gan.compile()
    return gan


def set_precision(model, precision):
    """Sets the dtype policy of a model and all that is in it; weights stay float32."""
    precision = keras.dtype_policies.get(precision)
    for layer in model._flatten_layers():
        layer.dtype_policy = precision
    if not backend.attends_in(precision.compute_dtype):
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.MultiHeadAttention):
                set_precision(layer, "float32")


def _plan(settings, builder):
    """How long to train: pictures, steps of an epoch, steps in all."""
    from galip_keras.datasets.pipeline import num_examples

    pictures = num_examples(builder)
    steps_per_epoch = math.ceil(pictures / settings["batch_size"])
    steps = settings["steps"] or settings["epochs"] * steps_per_epoch
    return {
        "pictures": pictures,
        "steps_per_epoch": steps_per_epoch,
        "total_steps": steps,
    }


def _warn_of_random_clip(preset, clip):
    if preset == "galip_tiny":
        say("galip_tiny stands on a small random CLIP: good for trying things out.")
    elif clip == "random":
        say("Warning: this CLIP is random. Whatever is trained on it means nothing.")


def _write_start(folder, settings, builder):
    versions = {
        "python": platform.python_version(),
        "galip_keras": __version__,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
        "backend": keras.backend.backend(),
    }
    (folder / "checkpoints").mkdir(exist_ok=True)
    _write_text(
        folder / _CONFIG, json.dumps({**settings, "versions": versions}, indent=2)
    )
    report = folder / "data_report.txt"
    if not report.exists():
        lines = datasets.report(builder)
        for line in lines:
            say(f"Data: {line}")
        _write_text(report, "\n".join(lines) or "nothing was left out")


def _write_text(path, text):
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(f"{text}\n")
    os.replace(temporary, path)


def _run(folder, settings, plan, builder, embeddings, model, gan, resume):
    checkpoint = Checkpoint(folder / "checkpoints", settings["save_every"])
    first = checkpoint.restore(gan)
    last = plan["total_steps"]
    if first:
        say(f"Resumed at step {first} of {last}.")
    elif resume:
        say(f"There is no checkpoint in {folder}: starting at step 0.")
    if first >= last:
        say(f"This run is at its last step, {first}: nothing to train.")
    with StopOnSignal() as stop:
        if first < last:
            callbacks = _callbacks(folder, settings, last, builder, model)
            batches = _batches(settings, builder, embeddings, model, first)
            _fit(settings, plan, batches, gan, [checkpoint, *callbacks, stop])
        if first < last or not (folder / _PRESET).exists():
            _write_preset(folder / _PRESET, model, gan)
    step = training_step(gan)
    return Run(folder, step, last, stop.received if step < last else None)


def _callbacks(folder, settings, last, builder, model):
    from galip_keras.datasets.pipeline import fixed_captions

    captions = fixed_captions(builder, _SAMPLES)
    return [
        SampleGrid(folder / "samples", settings["sample_every"], model, captions),
        keras.callbacks.TensorBoard(folder / "logs", write_graph=False),
        Progress(last),
        StopAt(last),
    ]


def _batches(settings, builder, embeddings, model, first):
    from galip_keras.datasets.pipeline import training_batches

    size = model.backbone.generator.image_size
    return training_batches(
        builder,
        model.preprocessor,
        crop_size=2 ** math.ceil(math.log2(size)),
        batch_size=settings["batch_size"],
        seed=settings["seed"],
        skip=first,
        embeddings=embeddings,
    )


def _fit(settings, plan, batches, gan, callbacks):
    first, last = training_step(gan), plan["total_steps"]
    steps_per_epoch = plan["steps_per_epoch"]
    first_epoch = first // steps_per_epoch
    say(
        f"Training to step {last}, {settings['batch_size']} pictures a step, "
        f"{steps_per_epoch} steps an epoch."
    )
    gan.fit(
        batches,
        initial_epoch=first_epoch,
        epochs=first_epoch + math.ceil((last - first) / steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


def _write_preset(folder, model, gan):
    # keras-hub cannot read presets of a mixed precision.
    set_precision(model.backbone, "float32")
    with write_folder(folder) as temporary:
        model.save_to_preset(str(temporary))
        gan.discriminator.save_weights(temporary / _DISCRIMINATOR)
