"""The training loop of a run: fit, report, and roll back when training goes wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import keras

from galip_keras import backend
from galip_keras.console import say
from galip_keras.models.architectures import CHECKPOINTS, PRESET
from galip_keras.models.augmentation import NUM_RANDOM
from galip_keras.models.backbone import GALIPBackbone
from galip_keras.models.gan import GALIP
from galip_keras.models.text_to_image import GALIPTextToImage
from galip_keras.training.callbacks import Evaluation, Report, Samples
from galip_keras.training.checkpoints import Checkpoint
from galip_keras.training.collapse import Guard
from galip_keras.training.journal import Journal
from galip_keras.training.memory import Trim
from galip_keras.training.plan import Plan, build_gan, compile_gan
from galip_keras.training.preset import write_preset
from galip_keras.training.progress import Interruption, Progress, training_step

# Images that are sampled and compared with real ones as training goes on.
_SAMPLES = 64

# Another rollback after this many would not help.
_MOST_ROLLBACKS = 3
_ROLLBACK_FACTOR = 0.5


class Outcome(NamedTuple):
    """What training came to.

    Attributes:
        folder: `pathlib.Path`. The run folder.
        step: int. The last step that was done.
        steps: int. The step that was aimed at.
        signal: int. The number of the signal that stopped it, or None.
        is_late: bool. Whether it stopped because its time was up.
        collapse: string. What went wrong, if that stopped it, or None.
    """

    folder: Path
    step: int
    steps: int
    signal: int | None = None
    is_late: bool = False
    collapse: str | None = None


class Loop:
    """The training loop of a run: fits, reports, and rolls back where it must."""

    def __init__(self, folder: Path, plan: Plan, embeddings: list[str] | None) -> None:
        self.folder = folder
        self.plan = plan
        self.embeddings = embeddings
        self.gan = build_gan(plan)
        self.last = plan.total_steps
        config = plan.config
        self.guard = Guard(config.on_collapse == "continue", self._warn)
        checkpoints = folder / CHECKPOINTS
        self.checkpoint = Checkpoint(checkpoints, config.save_every, self.guard)

    def run(self, deadline: float | None, resume: bool) -> Outcome:
        """Train to the last step, or until something stops it."""
        first = self._restore(resume)
        self.model = averaged(self.plan.model, self.gan)
        config = self.plan.config
        self.journal = Journal(self.folder, first, config.to_dict(), config.wandb)
        with Interruption(deadline) as interruption, Trim() as trim:
            if first < self.last:
                self._fit(trim, interruption)
            step, collapse = training_step(self.gan), self.guard.reason
            self._finish(trained=first < self.last)
        self.journal.close()
        if collapse or step == self.last:
            return Outcome(self.folder, step, self.last, collapse=collapse)
        return Outcome(
            self.folder, step, self.last, interruption.received, interruption.is_late
        )

    def _warn(self, reason: str) -> None:
        say(f"Warning: {reason}.")
        self.journal.tell(training_step(self.gan), "warning", reason=reason)

    def _restore(self, resume: bool) -> int:
        """Load the newest checkpoint, if there is one. Return its step."""
        first = self.checkpoint.restore(self.gan)
        factor = self.guard.state["learning_rate_factor"]
        if factor != 1:
            compile_gan(self.gan, self.plan, factor)
            self.checkpoint.restore(self.gan)
        if first:
            say(f"Resumed at step {first} of {self.last}.")
        elif resume:
            say(f"There is no checkpoint in {self.folder}: starting at step 0.")
        if first >= self.last:
            say(f"This run is at its last step, {first}: nothing to train.")
        return first

    def _fit(self, *others: keras.callbacks.Callback) -> None:
        """Fit until the last step, an interruption or a collapse."""
        config, plan = self.plan.config, self.plan
        callbacks = [*self._callbacks(), *others]
        while (step := training_step(self.gan)) < self.last:
            say(
                f"Training to step {self.last}, {config.batch_size} images per step, "
                f"{plan.steps_per_epoch} steps per epoch."
            )
            # One epoch for Keras, whatever the data are: reports count steps.
            self.gan.fit(
                self._batches(step),
                steps_per_epoch=self.last - step,
                verbose=0,
                callbacks=callbacks,
                shuffle=False,
            )
            if not self.guard.reason:
                return
            say(f"Training went wrong: {self.guard.reason}.")
            self.journal.tell(
                training_step(self.gan), "collapse", reason=self.guard.reason
            )
            if config.on_collapse != "rollback" or not self._roll_back():
                return

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        from galip_keras.datasets.pipeline import fixed_images

        config, plan = self.plan.config, self.plan
        size = self.model.backbone.generator.image_size
        real, captions = fixed_images(plan.builder, _SAMPLES, size)
        callbacks = [
            Report(
                config.report_every,
                self.last,
                config.batch_size,
                self.journal,
                self.guard,
            ),
            Samples(
                self.folder / "samples",
                config.sample_every,
                self.last,
                self.model,
                real,
                captions,
                self.journal,
                self.guard,
                self.checkpoint.save_best,
            ),
        ]
        if config.evaluate_every:
            callbacks.append(
                Evaluation.of_run(self.folder, plan, self.model, self.journal)
            )
        return [*callbacks, self.checkpoint, Progress(self.last)]

    def _batches(self, first: int) -> Any:
        from galip_keras.datasets.pipeline import training_batches

        config, host = self.plan.config, backend.process()
        generator = self.plan.model.backbone.generator
        return training_batches(
            self.plan.builder,
            self.plan.model.preprocessor,
            crop_size=2 ** math.ceil(math.log2(generator.image_size)),
            batch_size=config.batch_size // host[1],
            seed=config.seed,
            skip=first,
            embeddings=self.embeddings,
            latent_dim=generator.latent_dim,
            augmentation=NUM_RANDOM if config.augmentation else None,
            hard_mismatches=config.hard_mismatches,
            host=host,
        )

    def _roll_back(self) -> bool:
        """Go back to the best checkpoint, with lower learning rates.

        Returns:
            Whether that was possible.
        """
        state, gan = self.guard.state, self.gan
        count = state["rollbacks"] + 1
        factor = state["learning_rate_factor"] * _ROLLBACK_FACTOR
        if count > _MOST_ROLLBACKS:
            say(f"It was rolled back {_MOST_ROLLBACKS} times: stopping.")
            return False
        if not self.checkpoint.drop_after_best():
            say("There is no checkpoint to go back to: stopping.")
            return False
        compile_gan(gan, self.plan, factor)
        step = self.checkpoint.restore(gan)
        self.guard.go_on()
        self.guard.state.update(rollbacks=count, learning_rate_factor=factor)
        self.checkpoint.save(gan)
        self.journal.rewind(step)
        self.journal.tell(step, "rollback", learning_rate_factor=factor)
        say(f"Going on from step {step} with learning rates times {factor:.3g}.")
        return True

    def _finish(self, trained: bool) -> None:
        """Write the preset: of the last step, or after a collapse of the best one."""
        collapse = self.guard.reason
        best = self.checkpoint.restore_best(self.gan) if collapse else 0
        if best:
            say(f"The preset is the best one, of step {best}.")
        is_wanted = trained or not (self.folder / PRESET).exists()
        if backend.is_main() and (best or (not collapse and is_wanted)):
            write_preset(self.folder / PRESET, self.plan, self.model, self.gan)


def averaged(model: GALIPTextToImage, gan: GALIP) -> GALIPTextToImage:
    """The model with the averaged generator, if there is one."""
    if gan.averaged_generator is None:
        return model
    return GALIPTextToImage(GALIPBackbone(gan.averaged_generator), model.preprocessor)
