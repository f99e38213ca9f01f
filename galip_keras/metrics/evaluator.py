"""Compute metrics of images, with progress and cached statistics of real images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from galip_keras.console import progress_bar
from galip_keras.metrics import protocol
from galip_keras.metrics.config import METRICS
from galip_keras.metrics.features import Extractor, build_extractor
from galip_keras.metrics.image_sets import BATCH_SIZE, ImageSet
from galip_keras.metrics.scorer import Scorer
from galip_keras.metrics.statistics import Statistics

if TYPE_CHECKING:
    from galip_keras.models.text_to_image import GALIPTextToImage

# Images that `diversity` compares pixel by pixel, in pairs.
_DIVERSITY_IMAGES = 500


class _Features(NamedTuple):
    """What one pass over images leaves for the metrics."""

    statistics: dict[Extractor, Statistics]
    embeddings: dict[Scorer, np.ndarray]
    first: list[np.ndarray]


class Evaluator:
    """The networks that images are evaluated by.

    Args:
        model: the `galip_keras.GALIPTextToImage` to evaluate, for its CLIP, or None.
        features: string. One of `galip_keras.metrics.config.FEATURES`.
        scorer: string. The preset of a second CLIP, or of the only one if there is no
            model.
        weights: path. The file of Inception weights, if it is not at its usual place.

    Attributes:
        scorers: list of `Scorer`, the one of the model first.
        clip: the `galip_keras.metrics.features.Extractor` for `cmmd`, or None.
        extractor: the `Extractor` for `fid`, `kid` and `precision-recall`.

    Raises:
        ValueError: If one of the networks is not available.
    """

    def __init__(
        self,
        model: GALIPTextToImage | None = None,
        features: str = "clip",
        scorer: str | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        self.scorers: list[Scorer] = []
        if model is not None:
            self.scorers.append(Scorer.of_model(model))
        if scorer:
            self.scorers.append(Scorer.of_preset(scorer))
        self.clip = self.scorers[0].extractor if self.scorers else None
        self.extractor = build_extractor(features, self.clip, weights)

    def report(
        self,
        images: ImageSet,
        real: ImageSet | Statistics | None = None,
        metrics: Sequence[str] | None = None,
        cache: Path | None = None,
        progress: bool = True,
    ) -> tuple[dict[str, Any], list[np.ndarray], Statistics | None]:
        """Evaluate images.

        Args:
            images: the `ImageSet` to evaluate.
            real: the `ImageSet` or the `Statistics` to compare with, or None.
            metrics: sequence of keys of `galip_keras.metrics.config.METRICS`. Defaults
                to all that can be computed.
            cache: path. A folder for the statistics of `real`.
            progress: bool. Whether to show progress bars on standard error.

        Returns:
            A tuple of the report, a dict of plain values; the first images; and the
            `Statistics` of the real images, or None if no metric needed them.

        Raises:
            ValueError: If one of the given metrics cannot be computed.
        """
        asked = list(dict.fromkeys(metrics or METRICS))
        left_out = protocol.unavailable(asked, images, real, self.scorers)
        chosen = [name for name in asked if name not in left_out]
        if left_out and (metrics or not chosen):
            name, reason = next(iter(left_out.items()))
            raise ValueError(f"{name} cannot be measured: {reason}")
        if images.captions and self.scorers:
            self.scorers[0].preprocessor.warn_of_lost_words(images.captions)
        known = self._statistics_of_real(chosen, real, cache, progress)
        features = self._features(chosen, images, progress)
        report = {
            "figures": self._figures(chosen, features, images.captions, known),
            "left_out": left_out,
            "pictures": {**images.facts, "count": images.count},
            "real": getattr(real, "facts", None),
        }
        return report, features.first, known.get(self.extractor.key)

    def _extractor_of(self, metric: str) -> Extractor:
        return self.clip if metric == "cmmd" and self.clip else self.extractor

    def _extractors(self, metrics: Sequence[str]) -> list[Extractor]:
        """The extractors for metrics that compare with real images."""
        chosen = [name for name in metrics if name in protocol.ON_REAL_IMAGES]
        return list(dict.fromkeys(map(self._extractor_of, chosen)))

    def _statistics_of_real(
        self,
        metrics: Sequence[str],
        real: ImageSet | Statistics | None,
        cache: Path | None,
        progress: bool,
    ) -> dict[str, Statistics]:
        """The statistics of the real images by the key of their extractor."""
        if isinstance(real, Statistics):
            return {self.extractor.key: self._checked(real)}
        extractors = self._extractors(metrics)
        files = {e.key: _cache_file(cache, real, e) for e in extractors}
        known = {
            key: Statistics.load(file)
            for key, file in files.items()
            if file and file.is_file()
        }
        missing = [e for e in extractors if e.key not in known]
        if real is not None and missing:
            for extractor, statistics in zip(missing, _gather(real, missing, progress)):
                known[extractor.key] = statistics
                if file := files[extractor.key]:
                    _store(statistics, file)
        return known

    def _checked(self, statistics: Statistics) -> Statistics:
        if statistics.dim != self.extractor.dim:
            raise ValueError(
                f"the statistics are of {statistics.dim} features, and "
                f"{self.extractor.name} has {self.extractor.dim}: give the `features` "
                "that they were computed with"
            )
        return statistics

    def _features(
        self, metrics: Sequence[str], images: ImageSet, progress: bool
    ) -> _Features:
        statistics = {e: Statistics(e.dim) for e in self._extractors(metrics)}
        scorers = self.scorers if set(metrics) & set(protocol.ON_CAPTIONS) else []
        embeddings: list[list[np.ndarray]] = [[] for _ in scorers]
        first: list[np.ndarray] = []
        # A CLIP may be both extractor and scorer: it runs once.
        extractors = dict.fromkeys([*statistics, *(s.extractor for s in scorers)])
        for batch in _with_progress(images, "Images", progress):
            features = {extractor: extractor(batch) for extractor in extractors}
            for extractor, found in statistics.items():
                found.update(features[extractor])
            for scorer, parts in zip(scorers, embeddings):
                parts.append(features[scorer.extractor])
            first.extend(batch[: max(_DIVERSITY_IMAGES - len(first), 0)])
        scored = dict(zip(scorers, map(np.concatenate, embeddings)))
        return _Features(statistics, scored, first)

    def _figures(
        self,
        metrics: Sequence[str],
        features: _Features,
        captions: Sequence[str] | None,
        real: dict[str, Statistics],
    ) -> list[dict[str, Any]]:
        texts = {scorer: scorer.embed(captions or ()) for scorer in features.embeddings}
        figures = []
        for name in metrics:
            if name in protocol.ON_REAL_IMAGES:
                extractor = self._extractor_of(name)
                both = features.statistics[extractor], real[extractor.key]
                figures += protocol.compare(name, extractor, *both)
            elif name in protocol.ON_CAPTIONS:
                for scorer, embeddings in features.embeddings.items():
                    figures.append(
                        protocol.score(name, scorer, embeddings, texts[scorer])
                    )
            else:
                figures.append(protocol.diversity(features.first))
        return figures


def _cache_file(
    cache: Path | None, real: ImageSet | None, extractor: Extractor
) -> Path | None:
    if cache is None or real is None:
        return None
    facts = real.facts
    images = f"{facts['split']}-{facts['size']}px-{real.count}"
    return cache / f"{images}-{extractor.key}.npz"


def _gather(
    real: ImageSet, extractors: Sequence[Extractor], progress: bool
) -> list[Statistics]:
    """The statistics of images by each extractor, in one pass."""
    found = [Statistics(extractor.dim) for extractor in extractors]
    for batch in _with_progress(real, "Real images", progress):
        for statistics, extractor in zip(found, extractors):
            statistics.update(extractor(batch))
    return found


def _store(statistics: Statistics, path: Path) -> None:
    # If nothing can be written beside the records, every evaluation measures them.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        statistics.save(path, with_features=True)


def _with_progress(
    images: ImageSet, description: str, is_shown: bool
) -> Iterator[list[np.ndarray]]:
    is_long = images.count > BATCH_SIZE
    with progress_bar(
        is_shown and is_long, total=images.count, desc=description, unit=" images"
    ) as bar:
        for batch in images.batches():
            yield batch
            bar.update(len(batch))
