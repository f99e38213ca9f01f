"""Mean and covariance of features, and the files in which they are passed on."""

import os
import zipfile

import numpy as np

# Rows that are kept beside mean and covariance, for what needs pairs of pictures.
KEPT = 10_000


class Statistics:
    """Mean and covariance of features that come in parts, and the first of them.

    Memory does not grow with the number of pictures, after the first `KEPT`.

    Args:
        dim: int. The number of features of a picture.
    """

    def __init__(self, dim):
        self.count = 0
        self.mean = np.zeros(dim)
        self._squares = np.zeros((dim, dim))
        self._parts = []

    @property
    def dim(self):
        return len(self.mean)

    @property
    def covariance(self):
        """The unbiased covariance `(dim, dim)`."""
        return self._squares / max(self.count - 1, 1)

    @property
    def features(self):
        """The features of the first pictures, float32 `(count or KEPT, dim)`."""
        if len(self._parts) != 1:
            none = np.zeros((0, self.dim), "float32")
            self._parts = [np.concatenate([none, *self._parts])]
        return self._parts[0]

    def update(self, features):
        """Adds the features `(n, dim)` of more pictures.

        Raises:
            ValueError: where some are no finite numbers.
        """
        if not np.isfinite(features).all():
            raise ValueError("the features of some pictures are no finite numbers")
        kept = sum(map(len, self._parts))
        if kept < KEPT:
            self._parts.append(np.asarray(features[: KEPT - kept], "float32"))
        features = np.asarray(features, "float64")
        count, mean = len(features), features.mean(axis=0)
        shift, total = mean - self.mean, self.count + count
        centred = features - mean
        self._squares += centred.T @ centred
        self._squares += np.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    def save(self, path, with_features=False):
        """Writes `mu` and `sigma`, as the FID tools do, and how many pictures.

        Args:
            path: path. The `.npz` file.
            with_features: bool. Whether to write `features`, too.
        """
        arrays = {"mu": self.mean, "sigma": self.covariance, "count": self.count}
        if with_features:
            arrays["features"] = self.features
        temporary = f"{path}.tmp"
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path):
        """Reads a file that `save` or one of the FID tools wrote.

        Files of others tell no `count`, which is 0 then, and have no features.

        Raises:
            ValueError: where it is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = (
                    np.asarray(file[name], "float64") for name in ("mu", "sigma")
                )
                statistics = cls(len(mean))
                statistics.count = int(file["count"]) if "count" in file else 0
                if "features" in file:
                    statistics._parts = [file["features"]]
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no statistics: it must be an .npz file of mu and sigma"
            ) from error
        if covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"{path} holds no statistics: mu has the shape {mean.shape} and sigma "
                f"{covariance.shape}"
            )
        statistics.mean = mean
        statistics._squares = covariance * max(statistics.count - 1, 1)
        return statistics
