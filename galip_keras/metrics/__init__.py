"""Figures of generated pictures, as functions of arrays."""

from galip_keras.metrics.distances import clip_score, cmmd, diversity

__all__ = ["clip_score", "cmmd", "diversity"]
