"""The report of an evaluation: tables, notes, curves, a page."""

import json
from pathlib import Path

import numpy as np

from galip_keras.console import say
from galip_keras.files import write_text
from galip_keras.images import image_grid

# Rows and columns of the samples of a report.
_GRID = 6

# Of a run, by their title.
CURVES = {
    "losses of the discriminator": ("d_real", "d_mismatch", "d_fake"),
    "gradient penalty": ("gradient_penalty",),
    "adversarial loss of the generator": ("g_adversarial",),
    "similarity to the caption": ("similarity", "clip_score"),
    "distance of samples from real pictures": ("cmmd",),
    "norms of the gradients": ("d_gradient_norm", "g_gradient_norm"),
}


def save_report(report, images, folder, model):
    write_text(folder / "report.json", f"{json.dumps(report, indent=2)}\n")
    lines = ["# Evaluation", "", *table(report["figures"]), ""]
    lines += [f"- {line}" for line in notes(report)]
    columns = int(min(len(images), _GRID**2) ** 0.5)
    images = images[: columns**2]
    if len({image.shape for image in images}) == 1:
        image_grid(np.stack(images), columns).save(folder / "samples.png")
        lines += ["", "The first pictures, as they came:", "", "![](samples.png)"]
    journal = Path(model or "", "metrics.jsonl")
    if model and journal.is_file():
        try:
            draw_curves(journal, folder / "curves.png")
            lines += ["", "How training went:", "", "![](curves.png)"]
        except ImportError as error:
            say(f"The report has no curves: {error}.")
    write_text(folder / "report.md", "\n".join(lines) + "\n")


def table(figures):
    """The figures as rows of a table in Markdown."""
    rows = [("metric", "value", "by", "pictures", "real ones", "may be compared")]
    for figure in figures:
        real = figure.get("num_real", "none")
        rows.append(
            (
                figure["metric"],
                f"{figure['value']:.4g}",
                by(figure),
                f"{figure['num_images']:,}",
                "not told" if real is None else f"{real:,}" if real != "none" else "",
                figure["comparable"],
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def by(figure):
    """What a figure was measured by, in a few words."""
    return figure.get("features") or figure.get("scorer") or "pixels"


def notes(report):
    """What has to be known of the figures, as lines."""
    judged, real = report["pictures"], report["real"]
    if "model" in judged:
        lines = [
            f"{judged['count']:,} pictures by {judged['model']}, one a caption, "
            f"{judged['captions_a_picture']} captions a picture of the split "
            f"{judged['split']} of {judged['dataset']}, seeds from {judged['seed']}"
        ]
    else:
        lines = [f"{judged['count']:,} pictures of {judged['folder']}"]
    if real and "folder" in real:
        lines.append(f"compared with the pictures of {real['folder']}")
    elif real:
        lines.append(
            f"compared with the split {real['split']} of {real['dataset']}: the middle "
            f"of each, {real['size']} pixels"
        )
    for side in filter(None, (judged, real)):
        if side.get("grey"):
            lines.append(f"{side['grey']} pictures of {side['folder']} are grey")
    for figure in report["figures"]:
        if "resize" in figure:
            lines.append(f"pictures for {by(figure)} are resized: {figure['resize']}")
        lines.append(f"figures by {by(figure)} may be compared {figure['comparable']}")
        if "warning" in figure:
            lines.append(f"{figure['metric']}: {figure['warning']}")
    lines += [f"no {name}: {why}" for name, why in report["left_out"].items()]
    return list(dict.fromkeys(lines))


def draw_curves(journal, path):
    """Draws the curves of a run.

    Args:
        journal: path. Its `metrics.jsonl`.
        path: path. The picture to write.

    Raises:
        ImportError: where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "they need matplotlib, pip install 'galip-keras[metrics]'"
        ) from error
    lines = [json.loads(line) for line in Path(journal).read_text().splitlines()]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(2, 3).flat, CURVES.items()):
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("step")
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axis.plot(*zip(*points), label=name)
        axis.legend(fontsize="small")
    figure.savefig(path)
