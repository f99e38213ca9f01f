"""Honest figures of a model: what was measured, of which pictures, and by what."""

import json
from pathlib import Path

import numpy as np

from galip_keras import __version__, datasets
from galip_keras.callbacks import say
from galip_keras.grid import image_grid
from galip_keras.journal import write_text
from galip_keras.loading import load_model
from galip_keras.metrics.judge import Judge
from galip_keras.metrics.statistics import Statistics
from galip_keras.settings import make_folder

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


def evaluate(
    model=None,
    dataset=None,
    images=None,
    real=None,
    split=None,
    metrics=None,
    features="clip",
    num_images=None,
    seed=0,
    scorer=None,
    weights=None,
    statistics=None,
    save_statistics=None,
    out=None,
    data_dir=None,
    captions=None,
):
    """Measures a model, or pictures from anywhere.

    Args:
        model: string. As for `galip_keras.loading.load_model`. It makes a picture of
            each caption of the split; more than there are pictures take the second
            captions, and so on.
        dataset: string. As for `galip_keras.datasets.prepare`: where captions and real
            pictures come from.
        images: path. A folder of pictures, instead of `model`.
        real: path. A folder of real pictures, instead of those of `dataset`.
        split: string. Defaults to the test split where there is one.
        metrics: sequence of keys of `galip_keras.metrics.protocol.METRICS`. Defaults to
            all that can be had.
        features: string. A key of `galip_keras.metrics.features.FEATURES`, for all but
            the metrics of CLIP.
        num_images: int. Pictures to judge. Defaults to those of the split or folder.
        seed: int. That of the first picture that the model makes.
        scorer: string. A keras-hub preset of a CLIP, by which captions are scored, too.
        weights: path. The file of weights of an Inception.
        statistics: path. An `.npz` file of mean and covariance, instead of real
            pictures.
        save_statistics: path. Where those of the real pictures are written.
        out: path. The folder for `report.json`, `report.md` and their pictures.
        data_dir: path. Where prepared data sets live.
        captions: path. As for `galip_keras.datasets.prepare`.

    Returns:
        The report, a dict of plain values: `figures`, a list of dicts with `metric`,
        `value` and how it was measured, and what was compared with what.

    Raises:
        ValueError: where something cannot be measured.
        OSError: where something cannot be read or written.

    Example:

    ```python
    report = galip_keras.evaluate("toybirds", "folder:birds", num_images=20)
    for figure in report["figures"]:
        print(figure["metric"], figure["value"])
    ```
    """
    # It reads records through TensorFlow, which takes a while to load.
    from galip_keras.metrics import pictures

    if (model is None) == (images is None):
        raise ValueError("give a model or a folder of images, one of the two")
    if model is not None and dataset is None:
        raise ValueError("a model needs captions: give a dataset")
    # Measuring takes a while: what could not be written is told before.
    if out:
        make_folder(Path(out), "the report folder", "--out")
    if save_statistics:
        folder = Path(save_statistics).absolute().parent
        make_folder(folder, "the folder", "--save-statistics")
    network = load_model(model) if model else None
    builder = dataset and datasets.prepare(dataset, data_dir, captions=captions)
    split = split or (builder and pictures.default_split(builder))
    if network:
        texts = pictures.captions_of(builder, split, num_images)
        judged = pictures.generated(network, model, texts, seed)
        judged.facts.update(pictures.drawn_from(builder, dataset, split, texts))
        size = network.backbone.generator.image_size
    else:
        judged = pictures.of_folder(images, num_images)
        size = min(next(judged.parts())[0].shape[:2])
    others, cache = None, None
    if statistics:
        others = Statistics.load(statistics)
    elif real:
        others = pictures.of_folder(real)
    elif builder:
        others = pictures.of_dataset(builder, dataset, split, size)
        cache = Path(builder.data_path, "statistics")
    judge = Judge(network, features, scorer, weights)
    report, first, known = judge.report(judged, others, metrics, cache)
    report = {"version": __version__, "statistics": statistics, **report}
    if save_statistics:
        if known is None:
            raise ValueError(
                "there are no statistics to save: no metric compares with real pictures"
            )
        known.save(save_statistics)
    if out:
        _save_report(report, first, Path(out), model)
    return report


def _save_report(report, images, folder, model):
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
