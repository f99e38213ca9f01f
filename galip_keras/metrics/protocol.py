"""What each metric needs, and how a figure is recorded with what it was measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from galip_keras.metrics import distances
from galip_keras.metrics.config import METRICS
from galip_keras.metrics.features import Extractor
from galip_keras.metrics.image_sets import ImageSet
from galip_keras.metrics.scorer import Scorer
from galip_keras.metrics.statistics import KEPT, Statistics

ON_CAPTIONS = ("clip-score", "r-precision")
ON_REAL_IMAGES = ("fid", "kid", "cmmd", "precision-recall")
_ON_CLIP = ("cmmd", *ON_CAPTIONS)
_ON_PAIRS = ("kid", "cmmd", "precision-recall")

# Captions that an image is ranked against.
_GROUP = 100


def unavailable(
    metrics: Sequence[str],
    images: ImageSet,
    real: ImageSet | Statistics | None,
    scorers: Sequence[Scorer],
) -> dict[str, str]:
    """The metrics that cannot be computed, each with the reason.

    Args:
        metrics: sequence of strings.
        images: the `ImageSet` to evaluate.
        real: what to compare with, or None.
        scorers: sequence of `Scorer`.

    Raises:
        ValueError: If there is no such metric.
    """
    reasons = {}
    for name in metrics:
        if name not in METRICS:
            raise ValueError(
                f"unknown metric {name!r}: choose from {', '.join(METRICS)}"
            )
        if reason := _reason(name, images, real, scorers):
            reasons[name] = reason
    return reasons


def _reason(
    name: str,
    images: ImageSet,
    real: ImageSet | Statistics | None,
    scorers: Sequence[Scorer],
) -> str | None:
    least = METRICS[name]
    if images.count < least:
        return f"it needs {least} images, and there are {images.count}"
    if name in ON_REAL_IMAGES and real is None:
        return "there are no real images to compare with"
    if name in _ON_PAIRS and isinstance(real, Statistics):
        return "it needs real images, not only their mean and covariance"
    if name in ON_CAPTIONS and images.captions is None:
        return "not every image has a caption"
    if name in _ON_CLIP and not scorers:
        return "there is no CLIP: choose a scorer"
    if name == "diversity" and images.facts.get("sizes", 1) > 1:
        return "the images are not all of one size"
    return None


def compare(
    name: str, extractor: Extractor, generated: Statistics, real: Statistics
) -> list[dict[str, Any]]:
    """The figures of a metric that compares images with real ones."""
    figure = {
        "metric": name,
        "features": extractor.name,
        "resize": extractor.resize,
        "num_images": generated.count,
        "num_real": real.count or None,
        "comparable": extractor.comparable,
    }
    if name == "fid":
        return [{**figure, **_fid(generated, real)}]
    figure["num_images"] = min(generated.count, KEPT)
    figure["num_real"] = len(real.features)
    if name == "precision-recall":
        values = distances.precision_recall(generated.features, real.features)
        return [
            {**figure, "metric": metric, "value": value, "neighbours": 3}
            for metric, value in zip(("precision", "recall"), values)
        ]
    function = distances.cmmd if name == "cmmd" else distances.kernel_distance
    return [{**figure, "value": float(function(generated.features, real.features))}]


def _fid(generated: Statistics, real: Statistics) -> dict[str, Any]:
    value = distances.frechet_distance(
        generated.mean, generated.covariance, real.mean, real.covariance
    )
    # Statistics from other tools do not record their count.
    least = min(count for count in (generated.count, real.count) if count)
    if least > generated.dim:
        return {"value": value}
    warning = (
        f"{least} images for {generated.dim} features: the covariance does not have "
        "full rank, which makes the distance too large by an amount that depends on "
        "the number of images"
    )
    return {"value": value, "warning": warning}


def score(
    name: str,
    scorer: Scorer,
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
) -> dict[str, Any]:
    """The figure of a metric that compares images with their captions.

    Raises:
        ValueError: If an embedding is not finite.
    """
    if not (np.isfinite(image_embeddings).all() and np.isfinite(text_embeddings).all()):
        raise ValueError("the embeddings of some images are not finite numbers")
    figure: dict[str, Any] = {
        "metric": name,
        "scorer": scorer.name,
        "resize": scorer.extractor.resize,
        "num_images": len(image_embeddings),
        "comparable": scorer.extractor.comparable,
    }
    if name == "clip-score":
        figure["value"] = distances.clip_score(image_embeddings, text_embeddings)
    else:
        pair = image_embeddings, text_embeddings
        figure["value"] = distances.r_precision(*pair, _GROUP)
        figure["num_captions"] = _GROUP
        figure["num_images"] = len(image_embeddings) // _GROUP * _GROUP
    if scorer.is_own:
        figure["warning"] = "biased: the model was trained to please this CLIP"
    return figure


def diversity(images: Sequence[np.ndarray]) -> dict[str, Any]:
    """The figure of the metric that compares images with each other."""
    return {
        "metric": "diversity",
        "value": distances.diversity(np.stack(images)),
        "num_images": len(images),
        "comparable": "with images of the same size",
    }
