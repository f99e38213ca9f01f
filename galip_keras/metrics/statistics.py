"""Mean and covariance of features, and the files that share them."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np

# Rows that are kept beside mean and covariance, for metrics that need pairs of images.
KEPT = 10_000

# Rows that are added at once: the covariance of 2,048 features has 32 MiB, which every
# addition goes through.
_BLOCK = 1024


class Statistics:
    """Mean and covariance of features that arrive in batches, and the first features.

    Memory does not grow with the number of images, after the first `KEPT`.

    Args:
        dim: int. The number of features per image.
    """

    def __init__(self, dim: int) -> None:
        self._count = 0
        self._mean = np.zeros(dim)
        self._squares = np.zeros((dim, dim))
        self._waiting: list[np.ndarray] = []
        self._parts: list[np.ndarray] = []

    @property
    def dim(self) -> int:
        return len(self._mean)

    @property
    def count(self) -> int:
        """The number of images, 0 if it is not known."""
        return self._count + sum(map(len, self._waiting))

    @property
    def mean(self) -> np.ndarray:
        """The mean `(dim,)`."""
        self._add_waiting()
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance `(dim, dim)`."""
        self._add_waiting()
        return self._squares / max(self._count - 1, 1)

    @property
    def features(self) -> np.ndarray:
        """The features of the first images, float32 `(min(count, KEPT), dim)`."""
        if len(self._parts) != 1:
            none = np.zeros((0, self.dim), "float32")
            self._parts = [np.concatenate([none, *self._parts])]
        return self._parts[0]

    def update(self, features: np.ndarray) -> None:
        """Add the features `(n, dim)` of more images.

        Raises:
            ValueError: If some are not finite.
        """
        if not np.isfinite(features).all():
            raise ValueError("the features of some images are not finite numbers")
        kept = sum(map(len, self._parts))
        if kept < KEPT:
            self._parts.append(np.asarray(features[: KEPT - kept], "float32"))
        self._waiting.append(np.array(features, "float64"))
        if sum(map(len, self._waiting)) >= _BLOCK:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        features = np.concatenate(self._waiting)
        self._waiting = []
        count, mean = len(features), features.mean(axis=0)
        shift, total = mean - self._mean, self._count + count
        centred = features - mean
        self._squares += centred.T @ centred
        self._squares += np.outer(shift, shift) * (self._count * count / total)
        self._mean += shift * (count / total)
        self._count = total

    def save(self, path: str | os.PathLike[str], with_features: bool = False) -> None:
        """Write `mu` and `sigma`, as the FID tools do, and the number of images.

        Args:
            path: path. The `.npz` file.
            with_features: bool. Whether to write `features` as well.
        """
        arrays: dict[str, Any] = {"features": self.features} if with_features else {}
        temporary = f"{path}.tmp"
        with open(temporary, "wb") as file:
            np.savez(
                file, mu=self.mean, sigma=self.covariance, count=self.count, **arrays
            )
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read a file that `save` or one of the FID tools wrote.

        Files of other tools have no `count`, which is then 0, and no features.

        Raises:
            ValueError: If it is another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = (
                    np.asarray(file[name], "float64") for name in ("mu", "sigma")
                )
                statistics = cls(len(mean))
                statistics._count = int(file["count"]) if "count" in file else 0
                if "features" in file:
                    statistics._parts = [file["features"]]
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no statistics: give an .npz file with mu and sigma"
            ) from error
        if covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"{path} holds no statistics: mu has the shape {mean.shape} and sigma "
                f"{covariance.shape}"
            )
        statistics._mean = mean
        statistics._squares = covariance * max(statistics.count - 1, 1)
        return statistics
