"""A training run: data, model, callbacks and the folder that holds its results.

config.json       everything needed to do it again
checkpoints/      complete states to resume from, the newest and the best
samples/          pictures of the same noise and captions, as training goes on
metrics.jsonl     losses and figures of the samples, a line a report
logs/             the same for TensorBoard
data_report.txt   what was odd about the data
preset/           the averaged generator, for `GALIPTextToImage.from_preset`
"""

import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import keras
import keras_hub

from galip_keras import __version__, augmentation, backend, datasets
from galip_keras.backend import devices
from galip_keras.callbacks import (
    Interruption,
    Progress,
    Report,
    Samples,
    say,
    training_step,
)
from galip_keras.checkpoints import Checkpoint, write_folder
from galip_keras.clip import first_words
from galip_keras.gan import GALIP, adam
from galip_keras.guard import Guard
from galip_keras.journal import Journal, check_wandb, write_text
from galip_keras.mate_d import MateD
from galip_keras.text_to_image import (
    ARCHITECTURES,
    BUNDLED,
    GALIPBackbone,
    GALIPTextToImage,
    build,
    preset_folder,
)

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
SCHEDULES = ("constant", "cosine")
ON_COLLAPSE = ("continue", "rollback", "stop")

# What can be frozen, by network.
PARTS = {
    "bridge": ("generator", "bridge_predictor"),
    "prompts": ("generator", "prompt_predictor"),
    "blocks": ("generator", "conv", "generator_blocks", "to_rgb"),
    "extractor": ("discriminator", "tap_blocks", "narrow_block"),
    "head": ("discriminator", "head_conv_1", "head_conv_2"),
}

_CONFIG = "config.json"
_PRESET = "preset"
# What a preset has besides, for fine-tuning.
_DISCRIMINATOR = "discriminator.weights.h5"
_TRAINING = "training.json"

# Pictures that are sampled and compared with real ones as training goes on.
_SAMPLES = 64

# Pictures that tell mean and deviation of CLIP's features, where they are standardised.
_STANDARD = 256

# What fits the peaks that benchmarks/train_step.py measured: tensors of its size that a
# generator block, and a layer of CLIP, leaves for the way back, and what the libraries
# take for themselves.
_TENSORS_A_BLOCK = 15
_TENSORS_A_LAYER = 12
_LIBRARIES_GIB = 2.0

# The paper's, for what has none of its own.
_RATES = {"generator_lr": 1e-4, "discriminator_lr": 4e-4}
_WEIGHTS = {"similarity_weight": 4.0, "penalty_weight": 2.0, "range_weight": 0.0}
_PAPER = {**_RATES, **_WEIGHTS}

# After so many rollbacks another one will not help.
_MOST_ROLLBACKS = 3
_ROLLBACK_FACTOR = 0.5

# A run that is resumed goes on as it began. Other settings, such as its length, may
# change.
_FIXED = (
    "dataset",
    "preset",
    "init",
    "clip",
    "batch_size",
    "accumulate",
    "precision",
    "seed",
    "captions",
    "average",
    *_WEIGHTS,
    "augmentation",
    "freeze",
)


class Run(NamedTuple):
    """What `train` did.

    `folder` is the run folder, `step` the last training step and `steps` the step that
    was aimed at. What stopped it early: `signal`, the number of a signal, `is_late`,
    whether the time was up, or `collapse`, in words what went wrong.
    """

    folder: Path
    step: int
    steps: int
    signal: int | None = None
    is_late: bool = False
    collapse: str | None = None


def train(
    dataset,
    preset="galip_vit_base_patch32",
    run=None,
    clip=None,
    init=None,
    resume=False,
    epochs=None,
    steps=None,
    max_hours=None,
    batch_size=32,
    accumulate=1,
    precision="float32",
    seed=0,
    deterministic=None,
    generator_lr=None,
    discriminator_lr=None,
    base_batch_size=None,
    schedule="constant",
    warmup_steps=0,
    average=10_000,
    similarity_weight=None,
    penalty_weight=None,
    range_weight=None,
    augmentation=(),
    freeze=(),
    on_collapse="continue",
    data_dir=None,
    captions=None,
    allow_bad=False,
    save_every=100,
    sample_every=100,
    report_every=50,
    wandb=False,
    num_devices=1,
    coordinator=None,
    num_processes=None,
    process_id=None,
    dry_run=False,
):
    """Trains a GALIP on pictures with captions. Tells its progress on standard error.

    Ctrl-C and SIGTERM stop it after the running step, with everything saved. A resumed
    run ends in the weights of one that was never stopped, on a CPU with TensorFlow or
    JAX bit for bit.

    Args:
        dataset: string. As for `galip_keras.datasets.prepare`.
        preset: string. The architecture to train. What `load_model` takes besides is
            fine-tuned, as with `init`.
        run: path. The run folder. Defaults to `runs/` and the name of the data set.
        clip: string. For an architecture: `"random"`, or a keras-hub preset, hub handle
            or preset folder of a CLIP. Defaults to the architecture's own.
        init: string. What `load_model` takes: its weights, and those of the
            discriminator where it has one, are where training begins.
        resume: bool. Go on with the run that is in the run folder, if there is one.
        epochs: int. Passes over the data. Defaults to 100 where `steps` is not given.
        steps: int. Training steps, instead of `epochs`.
        max_hours: float. Stop after this time, with everything saved.
        batch_size: int. Pictures a step, over all devices and processes.
        accumulate: int. Steps whose gradients make one update. The generator's, but for
            those of the last one, are against the discriminator before its update.
        precision: string. `"float32"`, `"mixed_bfloat16"` or `"mixed_float16"`.
        seed: int. Seed of the first weights, of the noise and of the order of the data.
        deterministic: bool. Whether TensorFlow and PyTorch avoid what differs from run
            to run. Defaults to true on a CPU.
        generator_lr: float. Learning rate of the generator. Defaults, as do the
            following rate and the three weights, to what the preset was trained with,
            or to that of the architecture, for most the paper's: 1e-4.
        discriminator_lr: float. Learning rate of the discriminator: 4e-4.
        base_batch_size: int. The batch size that the learning rates are meant for: they
            are scaled by the square root of the real one, `batch_size * accumulate`, to
            it. By default they are taken as they are.
        schedule: string. `"constant"`, or `"cosine"`: down to 0 at the last step.
        warmup_steps: int. Steps in which the learning rates rise from 0.
        average: int. Pictures after which weights count half in the averaged generator,
            which makes the samples and the preset. 0 for none.
        similarity_weight: float. Weight of the CLIP similarity: 4.
        penalty_weight: float. Weight of the matching-aware gradient penalty: 2.
        range_weight: float. Weight of the squared distance of pixels to [-1, 1]: 0.
        augmentation: sequence of strings out of `augmentation.KINDS`, for small data.
        freeze: sequence of strings out of `PARTS`. What is not trained.
        on_collapse: string. What to do when training goes wrong: `"continue"` with a
            warning, `"rollback"` to the best checkpoint with half the learning rates,
            or `"stop"`. Where losses are not numbers, `"continue"` stops, too.
        data_dir: path. Where prepared data sets live.
        captions: path. As for `galip_keras.datasets.prepare`.
        allow_bad: bool. As for `galip_keras.datasets.prepare`.
        save_every: int. Steps from one checkpoint to the next; two minutes at most.
        sample_every: int. Steps from one grid of samples, and their figures, to the
            next.
        report_every: int. Steps from one report of the losses to the next.
        wandb: bool. Whether to report to Weights & Biases, too.
        num_devices: int. Devices of this machine, TensorFlow and JAX.
        coordinator: string. `HOST:PORT` of process 0, where several processes train
            together, JAX only. They need the same data and run folder.
        num_processes: int. How many they are.
        process_id: int. Which of them this is, from 0.
        dry_run: bool. Check everything and train nothing. The data set is prepared, but
            nothing is written to the run folder.

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
    deadline = max_hours and time.monotonic() + 3600 * max_hours
    if coordinator:
        devices.join(coordinator, num_processes, process_id)
    if init is None and preset not in ARCHITECTURES:
        init = preset
    given = {
        "generator_lr": generator_lr,
        "discriminator_lr": discriminator_lr,
        "similarity_weight": similarity_weight,
        "penalty_weight": penalty_weight,
        "range_weight": range_weight,
    }
    own = _own_settings(preset, init)
    given = {name: own[name] if x is None else x for name, x in given.items()}
    settings = {
        "dataset": _absolute_source(dataset),
        "preset": _absolute(preset),
        "init": _absolute(init) if init else None,
        "clip": _absolute(clip) if clip else None,
        "epochs": 100 if epochs is None and steps is None else epochs,
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "precision": precision,
        "seed": seed,
        "deterministic": deterministic,
        **given,
        "base_batch_size": base_batch_size,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "average": average,
        "augmentation": sorted(augmentation),
        "freeze": sorted(freeze),
        "on_collapse": on_collapse,
        "data_dir": _absolute_path(data_dir),
        "captions": _absolute_path(captions),
        "allow_bad": allow_bad,
        "save_every": save_every,
        "sample_every": sample_every,
        "report_every": report_every,
        "wandb": wandb,
        "num_devices": num_devices,
    }
    _check_settings(settings)
    folder = Path(run or Path("runs", _dataset_name(dataset))).absolute()
    if devices.is_main():
        _check_folder(folder, settings, resume)
        if not dry_run:
            _make_folder(folder)
    if deterministic or (deterministic is None and devices.is_cpu()):
        devices.repeatable()
    with devices.use(num_devices):
        # Devices that are missing are told before the data are prepared.
        pass
    with devices.main_first():
        data = {name: settings[name] for name in ("data_dir", "captions", "allow_bad")}
        builder = datasets.prepare(dataset, **data)
        model = _model(settings, builder)
        plan = _plan(settings, builder)
        if dry_run:
            sizes = {**describe(model), **_memory(settings, model)}
            return {"run": str(folder), **settings, **plan, **sizes}
        _warn_of_random_clip(settings)
        if devices.is_main():
            _write_start(folder, settings, builder)
        embeddings = _embeddings(builder, model)
    with devices.use(num_devices) as is_shared:
        if is_shared:
            # Again, with its weights on all of them.
            model = _model(settings, builder)
        gan = _assemble(model, settings, plan)
        return _run(
            folder, settings, plan, builder, embeddings, model, gan, resume, deadline
        )


def _model(settings, builder):
    """The model to train, a `GALIPTextToImage`, the same each time."""
    from galip_keras.datasets.pipeline import fixed_pictures

    keras.utils.set_random_seed(settings["seed"])
    model = load_model(settings["init"] or settings["preset"], settings["clip"])
    if model.preprocessor is None:
        raise ValueError(f"{settings['init']} has no tokenizer: captions are no use")
    clip = model.backbone.clip
    if clip.standardize and not settings["init"]:
        pictures, _ = fixed_pictures(builder, _STANDARD, clip.image_size)
        clip.adapt(pictures.astype("float32") / 127.5 - 1.0)
    return model


def load_model(source, clip=None):
    """Builds or loads a model, whatever it is called.

    Args:
        source: string. A key of `ARCHITECTURES` or `BUNDLED` in
            `galip_keras.text_to_image`, a run folder, a preset folder, or a handle such
            as `"hf://user/model"`.
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
    folder = Path(preset_folder(source))
    if (folder / "checkpoints").is_dir() or (folder / _PRESET).is_dir():
        if not (folder / _PRESET / _CONFIG).is_file():
            raise ValueError(
                f"{source} is a run without preset/, which is written when training "
                "ends: resume it, or give another model"
            )
        folder = folder / _PRESET
    if not folder.exists():
        known = ", ".join((*BUNDLED, *ARCHITECTURES))
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


def _own_settings(preset, init):
    """Learning rates and weights in the losses, where none are given."""
    if not init:
        return {**_PAPER, **ARCHITECTURES[preset].get("training", {})}
    path = Path(find_preset(init)) / _TRAINING
    if not path.is_file():
        return _PAPER
    try:
        own = json.loads(path.read_text())
        return {name: float(own[name]) for name in _PAPER}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: delete it or mend it") from error


def _absolute(source):
    """A source with its path made absolute, where it is one that exists."""
    if source in (*ARCHITECTURES, *BUNDLED, "random"):
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
    least = {"batch_size": 2, "average": 0, "warmup_steps": 0}
    others = ("epochs", "steps", "accumulate", "base_batch_size", "num_devices")
    every = ("save_every", "sample_every", "report_every")
    for name, value in {**dict.fromkeys((*others, *every), 1), **least}.items():
        if settings[name] is not None and settings[name] < value:
            raise ValueError(f"{name} must be at least {value}, not {settings[name]}")
    for name in _WEIGHTS:
        if not 0 <= settings[name] < math.inf:
            raise ValueError(f"{name} must be 0 or more, not {settings[name]}")
    for name in _RATES:
        if not 0 < settings[name] < math.inf:
            raise ValueError(f"{name} must be more than 0, not {settings[name]}")
    for name, known in (
        ("precision", PRECISIONS),
        ("schedule", SCHEDULES),
        ("on_collapse", ON_COLLAPSE),
        ("augmentation", augmentation.KINDS),
        ("freeze", tuple(PARTS)),
    ):
        values = settings[name]
        unknown = {values} if isinstance(values, str) else set(values)
        if unknown - set(known):
            raise ValueError(f"{name} must be one of {', '.join(known)}")
    shares = settings["num_devices"] * devices.process()[1]
    if settings["batch_size"] % shares:
        raise ValueError(
            f"{shares} devices cannot share {settings['batch_size']} pictures a step: "
            "batch_size must be a multiple"
        )
    if settings["wandb"]:
        check_wandb()


def _make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"the run folder {folder} cannot be written ({error.strerror}): "
            "give another --run"
        ) from error


def _check_folder(folder, settings, resume):
    """Makes sure that nothing in the run folder would be lost."""
    if not folder.is_dir() or next(folder.iterdir(), None) is None:
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


def _discriminator(model, init, preset):
    """A new discriminator, or to fine-tune a preset the one that lies in it."""
    sizes = ARCHITECTURES.get(preset, {}).get("discriminator", {})
    discriminator = MateD.for_clip(model.backbone.clip, **sizes)
    if init:
        weights = Path(find_preset(init)) / _DISCRIMINATOR
        if weights.is_file():
            discriminator.load_weights(weights)
        else:
            say(f"{init} has no {_DISCRIMINATOR}: fine-tuning starts with a new one.")
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


def _assemble(model, settings, plan):
    """The GAN of a model's generator and a discriminator, compiled."""
    discriminator = _discriminator(model, settings["init"], settings["preset"])
    for network in (model.backbone, discriminator):
        set_precision(network, settings["precision"])
    gan = GALIP(
        model.backbone.generator,
        discriminator,
        average=settings["average"] > 0,
        **{name: settings[name] for name in _WEIGHTS},
        augmentation=settings["augmentation"],
        seed=settings["seed"],
    )
    for part in settings["freeze"]:
        network, *names = PARTS[part]
        for name in names:
            layers = getattr(getattr(gan, network), name)
            if layers is None:
                raise ValueError(f"this model has no {part} to freeze")
            for layer in layers if isinstance(layers, list) else [layers]:
                layer.trainable = False
    _compile(gan, settings, plan, 1.0)
    return gan


def _compile(gan, settings, plan, factor):
    """Gives a GAN new optimizers, with learning rates times a factor."""
    if settings["base_batch_size"]:
        pictures = settings["batch_size"] * settings["accumulate"]
        factor *= math.sqrt(pictures / settings["base_batch_size"])
    optimizers = [
        adam(
            _schedule(settings[f"{network}_lr"] * factor, settings, plan),
            gradient_accumulation_steps=settings["accumulate"]
            if settings["accumulate"] > 1
            else None,
        )
        for network in ("generator", "discriminator")
    ]
    half_life = settings["average"] / settings["batch_size"]
    gan.compile(
        *optimizers,
        average_half_life=half_life,
        jit_compile=backend.jit_pays(gan.generator, plan["total_steps"]),
    )


def _schedule(learning_rate, settings, plan):
    """A learning rate by the number of steps, as Keras counts them."""
    warmup = settings["warmup_steps"]
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else learning_rate,
        decay_steps=max(plan["total_steps"] - warmup, 1),
        # What is left at the end.
        alpha=0.0 if settings["schedule"] == "cosine" else 1.0,
        warmup_target=learning_rate if warmup else None,
        warmup_steps=warmup,
    )


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


def _memory(settings, model):
    """How much memory a step takes, roughly, in GiB."""
    generator, clip = model.backbone.generator, model.backbone.clip
    discriminator = _count(MateD.for_clip(clip).trainable_variables)
    trained = _count(generator.trainable_variables)
    # Weight, gradient and two moments of what is trained; the average, old and new.
    numbers = 4 * (trained + discriminator) + _count(clip.variables)
    numbers += 2 * trained * (settings["average"] > 0)
    numbers += (trained + discriminator) * (settings["accumulate"] > 1)
    pictures = settings["batch_size"] // settings["num_devices"] // devices.process()[1]
    activations = pictures * _activations(generator, clip)
    size = 4 if settings["precision"] == "float32" else 2
    gib = (4 * numbers + size * activations) / 2**30 + _LIBRARIES_GIB
    return {"memory_gib": round(gib, 1)}


def _activations(generator, clip):
    """Numbers that a picture leaves in memory for the way back."""
    pixels = sum(block.size**2 * block.filters for block in generator.generator_blocks)
    tokens = 3 * clip.num_layers * (clip.grid_size**2 + 1) * clip.hidden_dim
    return _TENSORS_A_BLOCK * pixels + _TENSORS_A_LAYER * tokens


def _warn_of_random_clip(settings):
    if settings["preset"] == "galip_tiny" and settings["clip"] in (None, "random"):
        say("galip_tiny stands on a small random CLIP: good for trying things out.")
    elif settings["clip"] == "random":
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
    config = json.dumps({**settings, "versions": versions}, indent=2)
    write_text(folder / _CONFIG, f"{config}\n")
    report = folder / "data_report.txt"
    if not report.exists():
        lines = datasets.report(builder)
        for line in lines:
            say(f"Data: {line}")
        text = "\n".join(lines) or "nothing was left out"
        write_text(report, f"{text}\n")


def _run(folder, settings, plan, builder, embeddings, model, gan, resume, deadline):
    def warn(reason):
        say(f"Warning: {reason}.")
        journal.tell(training_step(gan), "warning", reason=reason)

    guard = Guard(settings["on_collapse"] == "continue", warn)
    checkpoint = Checkpoint(folder / "checkpoints", settings["save_every"], guard)
    first, last = checkpoint.restore(gan), plan["total_steps"]
    if guard.state["learning_rate_factor"] != 1:
        _compile(gan, settings, plan, guard.state["learning_rate_factor"])
        checkpoint.restore(gan)
    if first:
        say(f"Resumed at step {first} of {last}.")
    elif resume:
        say(f"There is no checkpoint in {folder}: starting at step 0.")
    if first >= last:
        say(f"This run is at its last step, {first}: nothing to train.")
    model = _averaged(model, gan)
    journal = Journal(folder, first, settings, settings["wandb"])
    with Interruption(deadline) as interruption:
        callbacks = []
        if first < last:
            callbacks = _callbacks(
                folder, settings, last, builder, model, journal, checkpoint
            )
        while (step := training_step(gan)) < last:
            batches = _batches(settings, builder, embeddings, model, step)
            _fit(settings, plan, batches, gan, [*callbacks, interruption])
            if not guard.reason:
                break
            say(f"Training went wrong: {guard.reason}.")
            journal.tell(training_step(gan), "collapse", reason=guard.reason)
            if settings["on_collapse"] != "rollback":
                break
            if not _roll_back(gan, settings, plan, checkpoint, journal):
                break
        step, collapse = training_step(gan), guard.reason
        best = checkpoint.restore_best(gan) if collapse else 0
        if best:
            say(f"The preset is the best one, of step {best}.")
        if best or (not collapse and (first < last or not (folder / _PRESET).exists())):
            _write_preset(folder / _PRESET, model, gan, settings)
    journal.close()
    if collapse or step == last:
        return Run(folder, step, last, collapse=collapse)
    return Run(folder, step, last, interruption.received, interruption.is_late)


def _averaged(model, gan):
    """The model with the averaged generator, if there is one."""
    if gan.averaged_generator is None:
        return model
    return GALIPTextToImage(GALIPBackbone(gan.averaged_generator), model.preprocessor)


def _roll_back(gan, settings, plan, checkpoint, journal):
    """Goes back to the best checkpoint, with lower learning rates.

    Returns:
        Whether that was possible.
    """
    guard = checkpoint.guard
    count = guard.state["rollbacks"] + 1
    factor = guard.state["learning_rate_factor"] * _ROLLBACK_FACTOR
    if count > _MOST_ROLLBACKS:
        say(f"It was rolled back {_MOST_ROLLBACKS} times: stopping.")
        return False
    if not checkpoint.drop_after_best():
        say("There is no checkpoint to go back to: stopping.")
        return False
    _compile(gan, settings, plan, factor)
    step = checkpoint.restore(gan)
    guard.go_on()
    guard.state.update(rollbacks=count, learning_rate_factor=factor)
    checkpoint.save(gan)
    journal.rewind(step)
    journal.tell(step, "rollback", learning_rate_factor=factor)
    say(f"Going on from step {step} with learning rates times {factor:.3g}.")
    return True


def _callbacks(folder, settings, last, builder, model, journal, checkpoint):
    from galip_keras.datasets.pipeline import fixed_pictures

    size = model.backbone.generator.image_size
    pictures, captions = fixed_pictures(builder, _SAMPLES, size)
    guard = checkpoint.guard
    return [
        Report(settings["report_every"], last, settings["batch_size"], journal, guard),
        Samples(
            folder / "samples",
            settings["sample_every"],
            last,
            model,
            pictures,
            captions,
            journal,
            guard,
            checkpoint.save_best,
        ),
        checkpoint,
        Progress(last),
    ]


def _batches(settings, builder, embeddings, model, first):
    from galip_keras.datasets.pipeline import training_batches

    generator, host = model.backbone.generator, devices.process()
    return training_batches(
        builder,
        model.preprocessor,
        crop_size=2 ** math.ceil(math.log2(generator.image_size)),
        batch_size=settings["batch_size"] // host[1],
        seed=settings["seed"],
        skip=first,
        embeddings=embeddings,
        latent_dim=generator.latent_dim,
        augmentation=augmentation.NUM_RANDOM if settings["augmentation"] else None,
        host=host,
    )


def _fit(settings, plan, batches, gan, callbacks):
    first, last = training_step(gan), plan["total_steps"]
    say(
        f"Training to step {last}, {settings['batch_size']} pictures a step, "
        f"{plan['steps_per_epoch']} steps an epoch."
    )
    # One epoch for Keras, whatever the data are: reports are by steps.
    gan.fit(
        batches,
        steps_per_epoch=last - first,
        verbose=0,
        callbacks=callbacks,
        shuffle=False,
    )


def _write_preset(folder, model, gan, settings):
    if not devices.is_main():
        return
    # keras-hub cannot read presets of a mixed precision.
    set_precision(model.backbone, "float32")
    with devices.alone(), write_folder(folder) as temporary:
        model.save_to_preset(str(temporary))
        gan.discriminator.save_weights(temporary / _DISCRIMINATOR)
        own = {name: settings[name] for name in _PAPER}
        (temporary / _TRAINING).write_text(json.dumps(own, indent=2) + "\n")
