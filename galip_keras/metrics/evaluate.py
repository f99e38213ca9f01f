"""Evaluate a model, or images from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from galip_keras import __version__, datasets
from galip_keras.files import make_folder
from galip_keras.metrics import image_sets
from galip_keras.metrics.config import EvaluationConfig
from galip_keras.metrics.evaluator import Evaluator
from galip_keras.metrics.image_sets import ImageSet, Split
from galip_keras.metrics.report import save_report
from galip_keras.metrics.statistics import Statistics
from galip_keras.presets.loading import load_model

if TYPE_CHECKING:
    from galip_keras.models.text_to_image import GALIPTextToImage


def evaluate(
    model: str | None = None, dataset: str | None = None, **settings: Any
) -> dict[str, Any]:
    """Evaluate a model, or images from anywhere.

    Args:
        model: string. As for `galip_keras.presets.loading.load_model`, or None to
            evaluate a folder of `images`.
        dataset: string. As for `galip_keras.datasets.prepare`.
        **settings: the other fields of
            `galip_keras.metrics.config.EvaluationConfig`, such as `num_images`,
            `metrics`, `images` or `out`.

    Returns:
        The report, a dict of plain values. `figures` is a list of dicts with `metric`,
        `value` and how it was measured; the other entries say what was compared with
        what.

    Raises:
        ValueError: If something cannot be measured.
        OSError: If something cannot be read or written.

    Example:

    ```python
    report = galip_keras.evaluate("toybirds", "folder:birds", num_images=20)
    for figure in report["figures"]:
        print(figure["metric"], figure["value"])
    ```
    """
    config = EvaluationConfig(model, dataset, **settings)
    _make_folders(config)
    network = None
    if config.model:
        network = load_model(config.model, precision=config.precision)
    split = _split(config)
    images = _images(config, network, split)
    real, cache = _real(config, network, split, images)
    evaluator = Evaluator(network, config.features, config.scorer, config.weights)
    report, first, known = evaluator.report(images, real, config.metrics, cache)
    statistics = config.statistics and str(config.statistics)
    report = {"version": __version__, "statistics": statistics, **report}
    if config.save_statistics:
        if known is None:
            raise ValueError(
                "there are no statistics to save: choose `metrics` that compare with "
                "real images"
            )
        known.save(config.save_statistics)
    if config.out:
        save_report(report, first, Path(config.out), config.model)
    return report


def _make_folders(config: EvaluationConfig) -> None:
    """Fail before the slow measuring if the results cannot be written."""
    if config.out:
        make_folder(Path(config.out), "out", "report folder")
    if config.save_statistics:
        folder = Path(config.save_statistics).absolute().parent
        make_folder(folder, "save_statistics")


def _split(config: EvaluationConfig) -> Split | None:
    if config.dataset is None:
        return None
    builder = datasets.prepare(
        config.dataset,
        config.data_dir,
        captions=config.captions,
        **{name: getattr(config, name) for name in datasets.FOLDER_OPTIONS},
    )
    return Split.of(builder, config.dataset, config.split)


def _images(
    config: EvaluationConfig, network: GALIPTextToImage | None, split: Split | None
) -> ImageSet:
    if network is None or split is None:
        folder = str(config.images)
        return image_sets.of_folder(folder, config.num_images, config.reader)
    return image_sets.generated(
        network, str(config.model), split, config.num_images, config.seed
    )


def _real(
    config: EvaluationConfig,
    network: GALIPTextToImage | None,
    split: Split | None,
    images: ImageSet,
) -> tuple[ImageSet | Statistics | None, Path | None]:
    """What to compare with, and the folder for its statistics."""
    if config.statistics:
        return Statistics.load(config.statistics), None
    if config.real:
        return image_sets.of_folder(config.real, reader=config.reader), None
    if split is None:
        return None, None
    if network is not None:
        size = network.backbone.generator.image_size
    else:
        size = min(next(images.batches())[0].shape[:2])
    cache = Path(split.builder.data_path, "statistics")
    return image_sets.of_split(split, size), cache
