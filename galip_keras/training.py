"""A training run: data, model, callbacks and the folder that holds its results.

config.json       everything needed to do it again
checkpoints/      complete states to resume from, the newest and the best
samples/          pictures of the same noise and captions, as training goes on
metrics.jsonl     losses and figures of the samples, a line a report
evaluation/       more figures, of as many pictures as are asked for
logs/             the same for TensorBoard
data_report.txt   what was odd about the data
preset/           the averaged generator, for `GALIPTextToImage.from_preset`
"""

import json
import math
import platform
import time
from pathlib import Path
from typing import NamedTuple

import keras
import keras_hub

from galip_keras import __version__, augmentation, backend, card, datasets
from galip_keras.backend import devices
from galip_keras.callbacks import (
    Evaluation,
    Interruption,
    Progress,
    Report,
    Samples,
    say,
    training_step,
)
from galip_keras.checkpoints import Checkpoint, write_folder
from galip_keras.gan import GALIP, adam
from galip_keras.guard import Guard
from galip_keras.journal import Journal, write_text
from galip_keras.loading import (
    CONFIG,
    DISCRIMINATOR,
    PAPER,
    PRESET,
    TRAINING,
    WEIGHTS,
    describe,
    load_discriminator,
    load_model,
    num_parameters,
    own_settings,
    set_precision,
)
from galip_keras.mate_d import MateD
from galip_keras.metrics.judge import Judge
from galip_keras.settings import (
    PARTS,
    absolute,
    absolute_path,
    absolute_source,
    check_folder,
    check_settings,
    dataset_name,
    make_folder,
)
from galip_keras.text_to_image import ARCHITECTURES, GALIPBackbone, GALIPTextToImage

# Pictures that are sampled and compared with real ones as training goes on.
_SAMPLES = 64

# What fits the peaks that benchmarks/train_step.py measured: tensors of its size that a
# generator block, and a layer of CLIP, leaves for the way back, and what the libraries
# take for themselves.
_TENSORS_A_BLOCK = 15
_TENSORS_A_LAYER = 12
_LIBRARIES_GIB = 2.0

# After so many rollbacks another one will not help.
_MOST_ROLLBACKS = 3
_ROLLBACK_FACTOR = 0.5


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
    hard_mismatches=0.0,
    freeze=(),
    on_collapse="continue",
    data_dir=None,
    captions=None,
    allow_bad=False,
    save_every=100,
    sample_every=100,
    report_every=50,
    evaluate_every=None,
    evaluate_images=1000,
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
        hard_mismatches: float from 0 to 1. The fraction of pictures whose mismatched
            caption, for the discriminator, is their own with one detail falsified. The
            others get the next caption in the batch.
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
        evaluate_every: int. Steps from one evaluation, as `galip_keras.evaluate` does
            it on the test split where there is one, to the next. None by default.
        evaluate_images: int. Pictures of an evaluation.
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
    run = galip_keras.train("folder:birds", preset="galip_tiny", steps=10)
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
    own = own_settings(preset, init)
    given = {name: own[name] if x is None else x for name, x in given.items()}
    settings = {
        "dataset": absolute_source(dataset),
        "preset": absolute(preset),
        "init": absolute(init) if init else None,
        "clip": absolute(clip) if clip else None,
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
        "hard_mismatches": hard_mismatches,
        "freeze": sorted(freeze),
        "on_collapse": on_collapse,
        "data_dir": absolute_path(data_dir),
        "captions": absolute_path(captions),
        "allow_bad": allow_bad,
        "save_every": save_every,
        "sample_every": sample_every,
        "report_every": report_every,
        "evaluate_every": evaluate_every,
        "evaluate_images": evaluate_images,
        "wandb": wandb,
        "num_devices": num_devices,
    }
    check_settings(settings)
    folder = Path(run or Path("runs", dataset_name(dataset))).absolute()
    if devices.is_main():
        check_folder(folder, settings, resume)
        if not dry_run:
            make_folder(folder)
    if deterministic or (deterministic is None and devices.is_cpu()):
        devices.repeatable()
    with devices.use(num_devices):
        # Devices that are missing are told before the data are prepared.
        pass
    with devices.main_first():
        data = {name: settings[name] for name in ("data_dir", "captions", "allow_bad")}
        builder = datasets.prepare(dataset, **data)
        model = _model(settings)
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
            model = _model(settings)
        gan = _assemble(model, settings, plan)
        return _run(
            folder, settings, plan, builder, embeddings, model, gan, resume, deadline
        )


def _model(settings):
    """The model to train, a `GALIPTextToImage`, the same each time."""
    keras.utils.set_random_seed(settings["seed"])
    model = load_model(settings["init"] or settings["preset"], settings["clip"])
    if model.preprocessor is None:
        raise ValueError(f"{settings['init']} has no tokenizer: captions are no use")
    return model


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
    discriminator = load_discriminator(model, settings["init"], settings["preset"])
    for network in (model.backbone, discriminator):
        set_precision(network, settings["precision"])
    gan = GALIP(
        model.backbone.generator,
        discriminator,
        average=settings["average"] > 0,
        **{name: settings[name] for name in WEIGHTS},
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
    discriminator = num_parameters(MateD.for_clip(clip).trainable_variables)
    trained = num_parameters(generator.trainable_variables)
    # Weight, gradient and two moments of what is trained; the average, old and new.
    numbers = 4 * (trained + discriminator) + num_parameters(clip.variables)
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
    write_text(folder / CONFIG, f"{config}\n")
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
        if best or (not collapse and (first < last or not (folder / PRESET).exists())):
            _write_preset(folder / PRESET, model, gan, settings, plan)
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
    callbacks = [
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
    if settings["evaluate_every"]:
        callbacks.insert(
            2, _evaluation(folder, settings, last, builder, model, journal)
        )
    return callbacks


def _evaluation(folder, settings, last, builder, model, journal):
    from galip_keras.metrics import pictures

    split = pictures.default_split(builder)
    captions = pictures.captions_of(builder, split, settings["evaluate_images"])
    size = model.backbone.generator.image_size
    made = pictures.generated(model, str(folder), captions)
    made.facts.update(
        pictures.drawn_from(builder, settings["dataset"], split, captions)
    )
    return Evaluation(
        folder / "evaluation",
        settings["evaluate_every"],
        last,
        Judge(model),
        made,
        pictures.of_dataset(builder, settings["dataset"], split, size),
        Path(builder.data_path, "statistics"),
        journal,
    )


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
        hard_mismatches=settings["hard_mismatches"],
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


def _write_preset(folder, model, gan, settings, plan):
    if not devices.is_main():
        return
    # keras-hub cannot read presets of a mixed precision.
    set_precision(model.backbone, "float32")
    with devices.alone(), write_folder(folder) as temporary:
        model.save_to_preset(str(temporary))
        gan.discriminator.save_weights(temporary / DISCRIMINATOR)
        own = {name: settings[name] for name in PAPER}
        (temporary / TRAINING).write_text(json.dumps(own, indent=2) + "\n")
        origin = card.of_training(folder.parent, settings, plan, training_step(gan))
        card.write(temporary, describe(model), origin, earlier=folder)
