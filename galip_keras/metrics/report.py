"""The report of an evaluation: a table, notes, training curves, and the page of all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from galip_keras.console import say
from galip_keras.files import write_text
from galip_keras.images import image_grid

# Rows and columns of the sample images.
_GRID = 6

# The titles of the plots, and what of `metrics.jsonl` each shows.
_CURVES = {
    "discriminator losses": ("d_real", "d_mismatch", "d_fake"),
    "gradient penalty": ("gradient_penalty",),
    "generator losses": ("g_adversarial", "energy_score"),
    "similarity to the caption": ("similarity", "clip_score"),
    "distance from samples to real images": ("cmmd",),
    "gradient norms": ("d_gradient_norm", "g_gradient_norm"),
}


def save_report(
    report: dict[str, Any],
    images: Sequence[np.ndarray],
    folder: Path,
    model: str | None,
) -> None:
    """Write `report.json`, and `report.md` with sample images and training curves.

    Args:
        report: dict that `Evaluator.report` returned.
        images: list of uint8 arrays `(height, width, 3)`, the first ones.
        folder: path. It must exist.
        model: string. If it is a run folder, its training curves are drawn.
    """
    write_text(folder / "report.json", f"{json.dumps(report, indent=2)}\n")
    lines = ["# Evaluation", "", *_table(report["figures"]), ""]
    lines += [f"- {line}" for line in notes(report)]
    columns = int(min(len(images), _GRID**2) ** 0.5)
    images = images[: columns**2]
    if len({image.shape for image in images}) == 1:
        image_grid(np.stack(images), columns).save(folder / "samples.png")
        lines += ["", "The first images, not selected:", "", "![](samples.png)"]
    journal = Path(model or "", "metrics.jsonl")
    if model and journal.is_file():
        try:
            draw_curves(journal, folder / "curves.png")
            lines += ["", "Training curves:", "", "![](curves.png)"]
        except ImportError as error:
            say(f"The report has no training curves: {error}.")
    write_text(folder / "report.md", "\n".join(lines) + "\n")


def _table(figures: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of a Markdown table."""
    rows = [("metric", "value", "by", "images", "real images", "comparable")]
    for figure in figures:
        rows.append(
            (
                figure["metric"],
                f"{figure['value']:.4g}",
                measured_by(figure),
                f"{figure['num_images']:,}",
                _num_real(figure),
                figure["comparable"],
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def _num_real(figure: dict[str, Any]) -> str:
    if "num_real" not in figure:
        return ""
    # Statistics from other tools do not record their count.
    return "unknown" if figure["num_real"] is None else f"{figure['num_real']:,}"


def measured_by(figure: dict[str, Any]) -> str:
    """The network that a figure was measured by, else `"pixels"`."""
    return figure.get("features") or figure.get("scorer") or "pixels"


def notes(report: dict[str, Any]) -> list[str]:
    """What a reader of the figures has to know, as lines."""
    images, real = report["pictures"], report["real"]
    lines = [_evaluated(images)]
    if real and "folder" in real:
        lines.append(f"compared with the images in {real['folder']}")
    elif real:
        lines.append(
            f"compared with the split {real['split']} of {real['dataset']}: the "
            f"central square of each image, resized to {real['size']} pixels"
        )
    for side in filter(None, (images, real)):
        if side.get("grey"):
            lines.append(f"grey images in {side['folder']}: {side['grey']}")
        if "reader" in side:
            lines.append(f"images in {side['folder']} are read as by {side['reader']}")
    for figure in report["figures"]:
        by = measured_by(figure)
        if "resize" in figure:
            lines.append(f"images for {by} are resized: {figure['resize']}")
        lines.append(f"figures by {by} are comparable {figure['comparable']}")
        if "warning" in figure:
            lines.append(f"{figure['metric']}: {figure['warning']}")
    lines += [f"no {name}: {reason}" for name, reason in report["left_out"].items()]
    return list(dict.fromkeys(lines))


def _evaluated(images: dict[str, Any]) -> str:
    if "model" not in images:
        return f"{images['count']:,} images in {images['folder']}"
    return (
        f"{images['count']:,} images by {images['model']} in {images['precision']}, "
        "one per caption, "
        f"{images['captions_a_picture']} captions per image of the split "
        f"{images['split']} of {images['dataset']}, seeds from {images['seed']}"
    )


def draw_curves(journal: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Draw the training curves of a run.

    Args:
        journal: path. The `metrics.jsonl` of the run.
        path: path. The image file to write.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "they need matplotlib, pip install 'galip-keras[metrics]'"
        ) from error
    lines = [json.loads(line) for line in Path(journal).read_text().splitlines()]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(2, 3).flat, _CURVES.items()):
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("step")
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axis.plot(*zip(*points), label=name)
        axis.legend(fontsize="small")
    figure.savefig(path)
