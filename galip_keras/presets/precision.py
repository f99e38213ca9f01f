"""The precision that the weights of a preset are stored in."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import h5py
import numpy as np


def halve(folder: str | Path) -> None:
    """Store the weights of a preset in half precision. Keras reads them as before.

    Args:
        folder: path. The preset folder, which is changed in place.

    Raises:
        ValueError: if a weight is too large for float16.
    """
    for path in Path(folder).glob("*.weights.h5"):
        with h5py.File(path) as file, h5py.File(f"{path}.half", "w") as half:
            half.attrs.update(file.attrs)
            file.visititems(functools.partial(_copy_halved, half))
        os.replace(f"{path}.half", path)


def _copy_halved(half: h5py.File, name: str, item: h5py.Group | h5py.Dataset) -> None:
    if not isinstance(item, h5py.Dataset):
        half.require_group(name).attrs.update(item.attrs)
    elif item.dtype != "float32":
        half[name] = item[()]
    elif np.abs(values := item[()]).max(initial=0) > np.finfo("float16").max:
        raise ValueError(f"{name} is too large for half precision")
    else:
        half[name] = values.astype("float16")
