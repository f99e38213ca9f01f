"""Measures pictures, and writes down with each figure how it was measured."""

import keras
import numpy as np
from keras import ops

from galip_keras.metrics import distances
from galip_keras.metrics.images import padded_parts
from galip_keras.metrics.statistics import KEPT, Statistics

# By name: the least number of pictures that it takes, and what it tells.
METRICS = {
    "fid": (2, "Frechet distance to the real pictures, less is better"),
    "kid": (2, "kernel distance to the real pictures, less is better"),
    "cmmd": (2, "distance of CLIP embeddings to the real ones, less is better"),
    "clip-score": (1, "mean cosine of pictures and captions, more is better"),
    "r-precision": (100, "how often a picture finds its caption among 100"),
    "precision-recall": (4, "parts of the pictures that are among those of the other"),
    "diversity": (2, "mean distance of two pictures, in grey levels"),
}
_OF_CAPTIONS = ("clip-score", "r-precision")
_OF_REAL = ("fid", "kid", "cmmd", "precision-recall")

# For these a pair of pictures is compared pixel by pixel.
_DIVERSE = 500


class Scorer:
    """A CLIP that scores pictures against captions.

    Args:
        name: string. What it is called.
        extractor: a `galip_keras.metrics.features.Extractor` of its embeddings.
        clip: a `galip_keras.FrozenCLIP`.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        is_own: bool. Whether the pictures come from a model that was trained with it.
    """

    def __init__(self, name, extractor, clip, preprocessor, is_own=False):
        self.name = name
        self.extractor = extractor
        self.is_own = is_own
        self._preprocessor = preprocessor
        token_ids = keras.Input((preprocessor.sequence_length,), dtype="int32")
        self._embedder = keras.Model(token_ids, clip.embed_text(token_ids))

    def embed(self, captions):
        """Embeddings `(n, embedding_dim)` of a list of captions."""
        parts = []
        for _, texts, padded in padded_parts(captions):
            token_ids = np.asarray(self._preprocessor(padded))
            part = self._embedder.predict_on_batch(token_ids)
            parts.append(ops.convert_to_numpy(part)[: len(texts)])
        return np.concatenate(parts)


def check(metrics, pictures, real, scorers):
    """Whether metrics can be had of these pictures.

    Args:
        metrics: sequence of keys of `METRICS`.
        pictures: the `Pictures` to judge.
        real: what they are compared with, or None.
        scorers: list of `Scorer`.

    Returns:
        A dict of the reasons, in words, why a metric cannot be had, by its name.
    """
    reasons = {}
    for name in metrics:
        if name not in METRICS:
            raise ValueError(
                f"unknown metric {name!r}: give some of {', '.join(METRICS)}"
            )
        least, _ = METRICS[name]
        if pictures.count < least:
            reasons[name] = f"it takes {least} pictures, and there are {pictures.count}"
        elif name in _OF_REAL and real is None:
            reasons[name] = "there are no real pictures to compare with"
        elif name in _OF_CAPTIONS and pictures.captions is None:
            reasons[name] = "not every picture has a caption"
        elif name in _OF_CAPTIONS and not scorers:
            reasons[name] = "there is no CLIP: give a scorer"
        elif name == "diversity" and pictures.facts.get("sizes", 1) > 1:
            reasons[name] = "the pictures are not of one size"
    return reasons


def needed(metrics, extractor, clip):
    """The extractors whose features of real pictures some metrics take.

    Args:
        metrics: sequence of keys of `METRICS`.
        extractor: the `Extractor` of all but `cmmd`.
        clip: that of `cmmd`.
    """
    found = {}
    for name in metrics:
        if name in _OF_REAL:
            source = clip if name == "cmmd" else extractor
            found[source.key] = source
    return list(found.values())


def gather(pictures, extractors, progress=iter):
    """The `Statistics` of pictures by each of some extractors, in one pass."""
    found = [Statistics(extractor.dim) for extractor in extractors]
    for part in progress(pictures.parts()):
        for statistics, extractor in zip(found, extractors):
            statistics.update(extractor(part))
    return found


def measure(metrics, pictures, real, extractor, clip, scorers, progress=iter):
    """Measures pictures.

    Args:
        metrics: sequence of keys of `METRICS`, for which `check` found no reason.
        pictures: the `Pictures` to judge.
        real: dict of the `Statistics` of real pictures by the key of their extractor.
        extractor: an `Extractor`, for all but `cmmd`.
        clip: the one for `cmmd`.
        scorers: list of `Scorer`.
        progress: callable. Wraps the iterator of parts.

    Returns:
        A tuple of the figures, a list of dicts of plain values, and the first pictures.

    Raises:
        ValueError: where something cannot be measured.
    """
    extractors = needed(metrics, extractor, clip)
    own = {e.key: Statistics(e.dim) for e in extractors}
    scorers = scorers if set(metrics) & set(_OF_CAPTIONS) else []
    embeddings = [[] for _ in scorers]
    first = []
    for part in progress(pictures.parts()):
        made = {}
        for source in (*extractors, *(scorer.extractor for scorer in scorers)):
            if id(source) not in made:
                made[id(source)] = source(part)
        for source in extractors:
            own[source.key].update(made[id(source)])
        for parts, scorer in zip(embeddings, scorers):
            parts.append(made[id(scorer.extractor)])
        first.extend(part[: max(_DIVERSE - len(first), 0)])
    embeddings = [np.concatenate(parts) for parts in embeddings]
    texts = [scorer.embed(pictures.captions) for scorer in scorers]
    figures = []
    for name in metrics:
        if name in _OF_REAL:
            source = clip if name == "cmmd" else extractor
            figures += _compare(name, source, own[source.key], real[source.key])
        elif name in _OF_CAPTIONS:
            for scorer, images, sentences in zip(scorers, embeddings, texts):
                figures.append(_score(name, scorer, images, sentences))
        else:
            figures.append(_diversity(first))
    return figures, first


def _compare(name, source, own, real):
    figure = {
        "metric": name,
        "features": source.name,
        "resize": source.resize,
        "num_images": own.count,
        "num_real": real.count or None,
        "comparable": source.comparable,
    }
    if name == "fid":
        figure["value"] = distances.frechet_distance(
            own.mean, own.covariance, real.mean, real.covariance
        )
        counts = [count for count in (own.count, real.count) if count]
        if min(counts) <= own.dim:
            figure["warning"] = (
                f"{min(counts)} pictures are not more than the {own.dim} dimensions: "
                "the covariance has not its full rank, and the distance is too large "
                "by an amount that depends on the number of pictures"
            )
        return [figure]
    figure["num_images"] = min(own.count, KEPT)
    figure["num_real"] = len(real.features)
    if name == "precision-recall":
        values = distances.precision_recall(own.features, real.features)
        return [
            {**figure, "metric": metric, "value": value, "neighbours": 3}
            for metric, value in zip(("precision", "recall"), values)
        ]
    function = distances.cmmd if name == "cmmd" else distances.kernel_distance
    figure["value"] = float(function(own.features, real.features))
    return [figure]


def _score(name, scorer, images, sentences):
    if not (np.isfinite(images).all() and np.isfinite(sentences).all()):
        raise ValueError("the embeddings of some pictures are no finite numbers")
    figure = {
        "metric": name,
        "scorer": scorer.name,
        "resize": scorer.extractor.resize,
        "num_images": len(images),
        "comparable": scorer.extractor.comparable,
    }
    if name == "clip-score":
        figure["value"] = distances.clip_score(images, sentences)
    else:
        figure["value"] = distances.r_precision(images, sentences)
        figure["num_captions"] = 100
        figure["num_images"] = len(images) // 100 * 100
    if scorer.is_own:
        figure["warning"] = "the model was trained to please this CLIP: it flatters it"
    return figure


def _diversity(images):
    return {
        "metric": "diversity",
        "value": distances.diversity(np.stack(images)),
        "num_images": len(images),
        "comparable": "with pictures of the same size",
    }
