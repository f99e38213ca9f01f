"""Metrics of generated images, as functions of arrays."""

from galip_keras.metrics.distances import (
    clip_score,
    cmmd,
    diversity,
    frechet_distance,
    kernel_distance,
    precision_recall,
    r_precision,
)

__all__ = [
    "clip_score",
    "cmmd",
    "diversity",
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
    "r_precision",
]
