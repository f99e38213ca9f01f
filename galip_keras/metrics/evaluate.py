"""Honest figures of a model: what was measured, of which pictures, and by what."""

from pathlib import Path

from galip_keras import __version__, datasets
from galip_keras.files import make_folder
from galip_keras.metrics.evaluator import Evaluator
from galip_keras.metrics.report import save_report
from galip_keras.metrics.statistics import Statistics
from galip_keras.presets.loading import load_model


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
        model: string. As for `galip_keras.presets.loading.load_model`. It makes a
            picture of each caption of the split; more than there are pictures take the
            second captions, and so on.
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
    from galip_keras.metrics import images as pictures

    if (model is None) == (images is None):
        raise ValueError("give a model or a folder of images, one of the two")
    if model is not None and dataset is None:
        raise ValueError("a model needs captions: give a dataset")
    # Measuring takes a while: what could not be written is told before.
    if out:
        make_folder(Path(out), "out", "report folder")
    if save_statistics:
        folder = Path(save_statistics).absolute().parent
        make_folder(folder, "save_statistics")
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
    judge = Evaluator(network, features, scorer, weights)
    report, first, known = judge.report(judged, others, metrics, cache)
    report = {"version": __version__, "statistics": statistics, **report}
    if save_statistics:
        if known is None:
            raise ValueError(
                "there are no statistics to save: no metric compares with real pictures"
            )
        known.save(save_statistics)
    if out:
        save_report(report, first, Path(out), model)
    return report
