"""Notices when training goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

# The figure of the samples that says how good they are: the less the better.
_QUALITY = "cmmd"

# A discriminator whose losses stay below this has nothing left to learn.
_EASY = 0.02
_EASY_REPORTS = 3
_EXPLODED = 1000.0
_ALIKE = 0.2
_WORSE = 3.0


class Guard:
    """Checks the figures of a run, and remembers the best.

    Args:
        goes_on: bool. Whether training goes on, with a warning, unless there is no
            sense in it.
        warn: callable of a string. Receives each kind of warning once.

    Attributes:
        reason: string. What went wrong, in words, or None.
        is_final: bool. Whether there is no sense in going on.
        state: dict of plain values. What a resumed run has to know: the best samples
            so far, what was warned of, and what rollbacks have changed.
    """

    def __init__(
        self, goes_on: bool = False, warn: Callable[[str], Any] = print
    ) -> None:
        self.goes_on = goes_on
        self.warn = warn
        self.reason: str | None = None
        self.is_final = False
        self.state: dict[str, Any] = {
            "learning_rate_factor": 1.0,
            "rollbacks": 0,
            "warned": [],
            "easy_reports": 0,
            "first": None,
            "best": None,
            "best_step": None,
            "diversity": 0.0,
        }

    def check_losses(self, figures: Mapping[str, float]) -> None:
        """Check the mean losses of a report, by name."""
        wrong = [k for k, v in figures.items() if not math.isfinite(v)]
        # Loss scaling skips steps whose gradients overflow.
        wrong = [name for name in wrong if not name.endswith("gradient_norm")]
        if wrong:
            self.stop("nan", f"not a number: {', '.join(wrong)}", is_final=True)
            return
        penalty = figures["gradient_penalty"]
        if penalty > _EXPLODED:
            self.stop("penalty", f"the gradient penalty exploded to {penalty:.3g}")
        is_easy = figures["d_real"] + figures["d_fake"] < _EASY
        self.state["easy_reports"] = self.state["easy_reports"] + 1 if is_easy else 0
        if self.state["easy_reports"] >= _EASY_REPORTS:
            self.stop(
                "discriminator",
                "the discriminator is saturated: it tells real from generated images "
                f"without mistakes (losses {figures['d_real']:.3g} and "
                f"{figures['d_fake']:.3g})",
            )

    def check_samples(self, step: int, figures: Mapping[str, float]) -> bool:
        """Check samples of the fixed noise and captions.

        Args:
            step: int. The training step.
            figures: dict of floats: `cmmd` and `diversity`.

        Returns:
            Whether these are the best so far.
        """
        value, diversity = figures[_QUALITY], figures["diversity"]
        if not math.isfinite(value):
            self.stop("nan", f"not a number: {_QUALITY}", is_final=True)
            return False
        state = self.state
        if diversity < _ALIKE * state["diversity"]:
            self.stop(
                "samples",
                f"the samples collapsed: they differ by {diversity:.3g}, where they "
                f"differed by {state['diversity']:.3g}",
            )
        if state["best"] is None:
            state["first"] = value
        elif value > max(_WORSE * state["best"], (state["first"] + state["best"]) / 2):
            self.stop(
                _QUALITY,
                f"{_QUALITY} is {value:.3g}, far above its best, "
                f"{state['best']:.3g} at step {state['best_step']}",
            )
        if self.reason:
            return False
        state["diversity"] = max(diversity, state["diversity"])
        is_best = state["best"] is None or value < state["best"]
        if is_best:
            state["best"], state["best_step"] = value, step
        return is_best

    def stop(self, kind: str, reason: str, is_final: bool = False) -> None:
        """Note that something is wrong. Only the first reason is kept."""
        if self.goes_on and not is_final:
            if kind not in self.state["warned"]:
                self.state["warned"].append(kind)
                self.warn(reason)
        elif self.reason is None:
            self.reason, self.is_final = reason, is_final

    def go_on(self) -> None:
        """Forget what was wrong."""
        self.reason, self.is_final = None, False
        self.state["easy_reports"] = 0
