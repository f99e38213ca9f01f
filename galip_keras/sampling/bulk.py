"""Many images written to a folder, even by a process that is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galip_keras import __version__
from galip_keras.images import image_grid
from galip_keras.metrics.config import OWN_CLIP
from galip_keras.sampling import image_files
from galip_keras.sampling.requests import FORMATS, Output
from galip_keras.sampling.sampler import Drawn, Sampler

# What file names leave out.
_DEFAULTS = {
    "truncation": 1.0,
    "best_of": None,
    "scorer": OWN_CLIP,
    "precision": "float32",
}


class Written(NamedTuple):
    """A file of images.

    Attributes:
        path: `pathlib.Path`.
        facts: dict of plain values. How its images were made.
        images: uint8 array `(num_seeds, image_size, image_size, 3)`, or None for a file
            that was there and was not read again.
    """

    path: Path
    facts: dict[str, Any]
    images: np.ndarray | None


class Bulk:
    """The files of a request, one per `Output`.

    Args:
        sampler: a `galip_keras.sampling.sampler.Sampler`.
        outputs: list of `galip_keras.sampling.requests.Output`.
        folder: path. An existing folder.
        facts: mapping of plain values. What holds for all files, such as the model.
        file_format: string. A key of `galip_keras.sampling.requests.FORMATS`.

    Attributes:
        finished: dict of the facts of outputs whose files are there already. Empty
            until `resume` is called.
    """

    def __init__(
        self,
        sampler: Sampler,
        outputs: Sequence[Output],
        folder: Path,
        facts: Mapping[str, Any],
        file_format: str = "png",
    ) -> None:
        self.sampler = sampler
        self.outputs = outputs
        self.folder = folder
        self.facts = {**facts, **sampler.facts}
        self.file_format = file_format
        self.finished: dict[Output, dict[str, Any]] = {}
        self._paths: dict[Output, Path] = {}

    @property
    def seed_name(self) -> str:
        """What the seed of a request is called: an image may have another one."""
        return "asked_seed" if "best_of" in self.facts else "seed"

    @property
    def missing(self) -> list[Output]:
        """The outputs that are still to be drawn."""
        return [output for output in self.outputs if output not in self.finished]

    def resume(self) -> None:
        """Find the files that an earlier process has written.

        Raises:
            ValueError: if a file of the right name was made in another way.
        """
        for output in self.outputs:
            path = self.path(output)
            facts = image_files.read_facts(path)
            if facts is None:
                continue
            for key, value in self._asked(output).items():
                if facts.get(key) != value:
                    raise ValueError(
                        f"{path} was made with another {key}: choose another `out`, or "
                        "leave `resume` out to draw it anew"
                    )
            self.finished[output] = facts

    def path(self, output: Output) -> Path:
        """The file of an output."""
        if output not in self._paths:
            self._paths[output] = self._find_path(output)
        return self._paths[output]

    def _find_path(self, output: Output) -> Path:
        others = {
            key: self.facts[key]
            for key, default in _DEFAULTS.items()
            if self.facts.get(key, default) != default
        }
        plus, minus = self.facts.get("plus", ()), self.facts.get("minus", ())
        name = output.name(plus, minus, others)
        path = self.folder / f"{name}{FORMATS[self.file_format][0]}"
        return image_files.free_path(path, {"model": self.facts.get("model")})

    def write(
        self, progress: Callable[[int], Any], reread: bool = False
    ) -> Iterator[Written]:
        """Draw what is missing, and write each file as soon as it is complete.

        Args:
            progress: callable. Told how many images were drawn, after each batch.
            reread: bool. Whether to read the images of files that were there.

        Yields:
            A `Written` for each output, in order, those that were there included.
        """
        drawn = self.sampler.draw(self.missing, progress)
        for output in self.outputs:
            path, facts = self.path(output), self.finished.get(output)
            if facts is not None:
                columns = output.columns
                images = image_files.cut_sheet(path, columns) if reread else None
                yield Written(path, facts, images)
                continue
            result = next(drawn)
            facts = {**self._asked(output), **_chosen(result), "version": __version__}
            sheet = image_grid(result.images, output.columns)
            image_files.save_image(sheet, path, facts, self.file_format)
            yield Written(path, facts, result.images)

    def write_grid(self, rows: Sequence[np.ndarray], seeds: Sequence[int]) -> Written:
        """Write `grid.png`, a row per prompt and a column per seed."""
        facts = {
            "prompts": list(dict.fromkeys(output.prompt for output in self.outputs)),
            f"{self.seed_name}s": list(seeds),
            **self.facts,
            "version": __version__,
        }
        path = image_files.free_path(self.folder / "grid.png", facts)
        images = np.concatenate(rows)
        image_files.save_image(image_grid(images, columns=len(seeds)), path, facts)
        return Written(path, facts, images)

    def _asked(self, output: Output) -> dict[str, Any]:
        seeds = _one_or_all(self.seed_name, output.seeds)
        return {"prompt": output.prompt, **seeds, **self.facts}


def _chosen(drawn: Drawn) -> dict[str, Any]:
    if drawn.scores is None:
        return {}
    return {**_one_or_all("seed", drawn.seeds), **_one_or_all("score", drawn.scores)}


def _one_or_all(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A fact of an image, or the facts of a sheet."""
    return {name: values[0]} if len(values) == 1 else {f"{name}s": list(values)}
