"""Files of safetensors, read without a library: a JSON header and plain numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}

# The longest header that the format allows.
_LONGEST_HEADER = 100_000_000


def widen_bfloat16(halves: np.ndarray) -> np.ndarray:
    """Turn bfloat16 into float32. NumPy lacks it: it is the upper half of a float32.

    Args:
        halves: uint16 array, little-endian.

    Returns:
        A float32 array of the same shape.
    """
    return np.asarray(halves.astype("<u4") << 16).view("<f4")


class StoredTensor:
    """A tensor that is still in its file. `np.asarray` reads it."""

    def __init__(self, path: str | Path, start: int, facts: dict[str, Any]) -> None:
        self.path = path
        self.kind = facts["dtype"]
        if self.kind not in _DTYPES:
            raise ValueError(f"it holds numbers of the type {self.kind}.")
        self.dtype = np.dtype(_DTYPES[self.kind])
        self.shape = tuple(facts["shape"])
        begin, end = facts["data_offsets"]
        self.offset = start + begin
        size = math.prod(self.shape) * self.dtype.itemsize
        is_inside = 0 <= begin <= end and start + end <= Path(path).stat().st_size
        if min(self.shape, default=0) < 0 or end - begin != size or not is_inside:
            raise ValueError("it is cut or damaged.")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        tensor = np.fromfile(
            self.path, self.dtype, math.prod(self.shape), offset=self.offset
        ).reshape(self.shape)
        if self.kind == "BF16":
            tensor = widen_bfloat16(tensor)
        return tensor if dtype is None else tensor.astype(dtype)


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= _LONGEST_HEADER


def read_safetensors(path: str | Path) -> dict[str, StoredTensor]:
    """Read the names of the tensors in a file, and leave the tensors on disk.

    Raises:
        ValueError: if the file is cut or damaged.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        return {
            name: StoredTensor(path, 8 + length, facts)
            for name, facts in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no sound safetensors file: {error}") from error
