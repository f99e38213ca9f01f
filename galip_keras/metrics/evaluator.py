"""From pictures, real ones and a choice of metrics to a report."""

import os
import sys
from pathlib import Path

from tqdm.auto import tqdm

from galip_keras.metrics import protocol
from galip_keras.metrics.features import extractor as build_extractor
from galip_keras.metrics.features import of_model, of_preset
from galip_keras.metrics.images import AT_ONCE
from galip_keras.metrics.statistics import Statistics
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor


class Evaluator:
    """The networks that pictures are judged by.

    Args:
        model: the `galip_keras.GALIPTextToImage` whose CLIP is at hand, or None.
        features: string. A key of `galip_keras.metrics.features.FEATURES`.
        scorer: string. A CLIP preset that scores, too. Where there is no model, it is
            the CLIP at hand.
        weights: path. The file of an Inception, where it is not at its usual place.

    Raises:
        ValueError: where one of them cannot be had.
    """

    def __init__(self, model=None, features="clip", scorer=None, weights=None):
        self.scorers = []
        if model is not None:
            own = of_model(model.backbone.clip)
            self.scorers.append(
                protocol.Scorer(
                    "the model's own CLIP",
                    own,
                    model.backbone.clip,
                    model.preprocessor,
                    is_own=True,
                )
            )
        if scorer:
            network, clip, tokenizer = of_preset(scorer)
            preprocessor = GALIPTextToImagePreprocessor(tokenizer)
            self.scorers.append(protocol.Scorer(scorer, network, clip, preprocessor))
        self.clip = self.scorers[0].extractor if self.scorers else None
        self.extractor = build_extractor(features, self.clip, weights)

    def report(self, pictures, real=None, metrics=None, cache=None, progress=True):
        """Measures pictures.

        Args:
            pictures: the `Pictures` to judge.
            real: the `Pictures` or the `Statistics` to compare with, or None.
            metrics: sequence of keys of `protocol.METRICS`. Defaults to all that can be
                had.
            cache: path. A folder for the statistics of `real`.
            progress: bool. Whether to show progress on standard error.

        Returns:
            A tuple of the report, a dict of plain values, the first pictures, and the
            `Statistics` of the real ones in `features`, or None.

        Raises:
            ValueError: where a metric that was asked for cannot be had.
        """
        asked = list(dict.fromkeys(metrics or protocol.METRICS))
        reasons = protocol.check(asked, pictures, real, self.scorers)
        if "cmmd" in asked and self.clip is None:
            reasons.setdefault("cmmd", "there is no CLIP: give a scorer")
        if metrics and reasons:
            name, reason = next(iter(reasons.items()))
            raise ValueError(f"{name} cannot be measured: {reason}")
        chosen = [name for name in asked if name not in reasons]
        if isinstance(real, Statistics):
            chosen = self._without_features(chosen, real, metrics, reasons)
        if not chosen:
            name, reason = next(iter(reasons.items()))
            raise ValueError(f"nothing can be measured: {name}: {reason}")
        known = self._real(chosen, real, cache, progress)
        figures, first = protocol.measure(
            chosen,
            pictures,
            known,
            self.extractor,
            self.clip,
            self.scorers,
            _bar("Pictures", pictures.count, progress),
        )
        report = {
            "figures": figures,
            "left_out": reasons,
            "pictures": {**pictures.facts, "count": pictures.count},
            "real": getattr(real, "facts", None),
        }
        return report, first, known.get(self.extractor.key)

    def _without_features(self, chosen, real, metrics, reasons):
        """A file of mean and covariance is enough for one metric."""
        if real.dim != self.extractor.dim:
            raise ValueError(
                f"the statistics are of {real.dim} features, and {self.extractor.name} "
                f"has {self.extractor.dim}: give the `features` that they are of"
            )
        missing = [x for x in ("kid", "cmmd", "precision-recall") if x in chosen]
        if missing and metrics:
            raise ValueError(
                f"{missing[0]} needs the real pictures: a file of statistics holds "
                "mean and covariance alone"
            )
        reasons.update(dict.fromkeys(missing, "there are statistics alone"))
        return [name for name in chosen if name not in missing]

    def _real(self, metrics, real, cache, progress):
        """The statistics of the real pictures by the key of their extractor."""
        if isinstance(real, Statistics):
            return {self.extractor.key: real}
        known, unknown = {}, []
        for source in protocol.needed(metrics, self.extractor, self.clip):
            path = cache and Path(cache, f"{_slug(real)}-{source.key}.npz")
            if path and path.is_file():
                known[source.key] = Statistics.load(path)
            else:
                unknown.append((source, path))
        if unknown:
            sources = [source for source, _ in unknown]
            bar = _bar("Real pictures", real.count, progress)
            for (source, path), found in zip(
                unknown, protocol.gather(real, sources, bar)
            ):
                known[source.key] = found
                if path:
                    _store(found, path)
        return known


def _slug(real):
    """Which pictures, in a file name."""
    return f"{real.facts['split']}-{real.facts['size']}px-{real.count}"


def _store(statistics, path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        statistics.save(path, with_features=True)
    except OSError:
        # Whoever cannot write beside the records measures them every time.
        pass


def _bar(what, count, is_shown):
    def wrap(parts):
        with tqdm(
            total=count,
            desc=what,
            unit=" pictures",
            file=sys.stderr,
            disable=not is_shown or count <= AT_ONCE or "TQDM_DISABLE" in os.environ,
        ) as bar:
            for part in parts:
                yield part
                bar.update(len(part))

    return wrap
