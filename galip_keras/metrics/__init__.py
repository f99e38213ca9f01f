"""Figures of images, as functions of arrays. They load on first use."""

from typing import Any

__all__ = [
    "clip_score",
    "cmmd",
    "diversity",
    "frechet_distance",
    "kernel_distance",
    "precision_recall",
    "r_precision",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from galip_keras.metrics import distances

    return getattr(distances, name)
