"""PyTorch's weight files, read without running any code in them."""

from __future__ import annotations

import collections
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from galip_keras.convert.safetensors import (
    StoredTensor,
    is_safetensors,
    read_safetensors,
    widen_bfloat16,
)

# NumPy types of an archive's storages.
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


def read_state(path: str | Path, lazy: bool = False) -> Any:
    """Read a file that holds nothing but tensors and plain containers.

    Args:
        path: path. A file written by `torch.save`, `torch.jit.save` or
            safetensors. Its content decides, not its name. From a TorchScript archive,
            parameters and buffers are read by their dotted names; its code is ignored.
        lazy: bool. Whether to leave tensors on disk, as `Stored`, which `np.asarray`
            reads. Files older than PyTorch 1.6 are always read as a whole.

    Returns:
        The content of the file, with tensors as NumPy arrays.

    Raises:
        ValueError: if the file is something else or carries code. Nothing in it is
            executed.
        ImportError: if the file is older than PyTorch 1.6 and PyTorch is not installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if is_safetensors(path):
        tensors = read_safetensors(path)
        return tensors if lazy else to_numpy(tensors)
    with open(path, "rb") as file:
        start = file.read(2)
    is_archive = zipfile.is_zipfile(path)
    if start == b"PK" and not is_archive:
        raise ValueError(f"{path} is incomplete: the end of the archive is missing.")
    try:
        # What is no pickle either needs no PyTorch to be refused.
        if not is_archive and start[:1] != pickle.PROTO:
            raise pickle.UnpicklingError("It is no pickle.")
        state = _read_archive(path) if is_archive else _read_old(path)
    except _Forbidden as error:
        raise ValueError(
            f"{path} holds more than tensors and plain containers ({error}) and was "
            "not loaded: such a file could run code."
        ) from error
    except (ImportError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is no file of PyTorch weights, or holds more than tensors and "
            "plain containers."
        ) from error
    return state if lazy else to_numpy(state)


def to_numpy(value: Any) -> Any:
    """Convert tensors to NumPy arrays, including those in dicts and lists."""
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_numpy(item) for item in value]
    if isinstance(value, (Stored, StoredTensor)):
        return np.asarray(value)
    if hasattr(value, "detach"):
        value = value.detach()
        is_bfloat16 = str(value.dtype) == "torch.bfloat16"
        return (value.float() if is_bfloat16 else value).numpy()
    return value


class _Forbidden(Exception):
    """A file refers to something other than tensors and plain containers."""


def _read_old(path: str | Path) -> Any:
    """Read the format before PyTorch 1.6, pickles that only PyTorch can read."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} is older than PyTorch 1.6, or not a PyTorch file: reading it "
            "needs PyTorch, pip install 'galip-keras[torch]'"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch's message names the object that it refused.
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise (_Forbidden(found[1]) if found else error) from error


class Stored:
    """A tensor that is still in its file. `np.asarray` reads it."""

    def __init__(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> None:
        self._storage = storage
        self._offset = offset
        self.shape = tuple(shape)
        self._stride = tuple(stride)
        reach = [(n - 1) * step for n, step in zip(self.shape, self._stride)]
        if min((offset, *self.shape, *self._stride), default=0) < 0 or (
            0 not in self.shape and offset + sum(reach) >= storage.count
        ):
            raise ValueError("A tensor is larger than its storage.")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._storage.read()
        steps = [step * values.itemsize for step in self._stride]
        tensor = np.lib.stride_tricks.as_strided(
            values[self._offset :], self.shape, steps, writeable=False
        )
        if self._storage.dtype == _DTYPES["BFloat16Storage"]:
            tensor = widen_bfloat16(tensor)
        return tensor if dtype is None else tensor.astype(dtype)


class _Storage:
    """The numbers of one or more tensors, a file in the archive."""

    def __init__(
        self, path: str | Path, entry: zipfile.ZipInfo, dtype: str, count: int
    ) -> None:
        self.path = path
        self.entry = entry
        self.dtype = dtype
        self.count = count
        # A compressed entry could be larger than it looks.
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or count * np.dtype(dtype).itemsize > entry.file_size
        ):
            raise ValueError(f"The storage {entry.filename} is compressed or cut.")

    def read(self) -> np.ndarray:
        with zipfile.ZipFile(self.path) as archive:
            return np.frombuffer(archive.read(self.entry), self.dtype)


class _Module:
    """A module of TorchScript: its attributes, without its code."""

    # Unpickling calls no constructor, and `__setstate__` only if there is a state.
    attributes: dict[str, Any] = {}  # noqa: RUF012

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Unpickles an archive that may use nothing but the names listed here.

    `torch.load` would need all tensors in memory at once, and cannot read TorchScript
    without running it.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: str | Path,
        archive: zipfile.ZipFile,
        root: str,
    ) -> None:
        super().__init__(file)
        self._path = path
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        known: dict[tuple[str, str], Callable] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch", "Size"): tuple,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, tag: value,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and re.fullmatch(r"build_\w+list", name):
            return list
        raise _Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count = pid
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        return _Storage(self._path, entry, dtype, count)


def _read_archive(path: str | Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = name.removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("It was written on a big-endian machine.")
        with archive.open(name) as file:
            state = _Reader(cast(BinaryIO, file), path, archive, root).load()
    return dict(_tensors(state)) if isinstance(state, _Module) else state


def _tensor(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *_: Any,
) -> Stored:
    return Stored(storage, offset, shape, stride)


def _tensors(module: _Module, prefix: str = "") -> Iterator[tuple[str, Stored]]:
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, Stored):
            yield prefix + name, value
