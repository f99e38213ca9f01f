"""PyTorch's files of weights, read without running what may be in them."""

import collections
import pickle
import re
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np

# What an archive's storages hold. NumPy lacks bfloat16: the upper half of a float32.
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


def read_state(path, lazy=False):
    """Reads a PyTorch file that holds tensors and plain containers only.

    Args:
        path: string. A file that `torch.save` or `torch.jit.save` wrote. Of a
            TorchScript archive the parameters and buffers are read, by their dotted
            names; its code is not looked at.
        lazy: bool. Whether to leave tensors on disk: they are `Stored`, which
            `np.asarray` reads. Where a file is older than PyTorch 1.6, they are arrays
            all the same.

    Returns:
        What the file holds, tensors as NumPy arrays.

    Raises:
        ValueError: for a file that is something else or carries code. Nothing in it is
            executed.
        ImportError: where the file is older than PyTorch 1.6, and PyTorch is not
            installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        state = _read_archive(path) if zipfile.is_zipfile(path) else _read_old(path)
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


def to_numpy(value):
    """Tensors, also those in dicts and lists, as NumPy arrays."""
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_numpy(item) for item in value]
    if isinstance(value, Stored):
        return np.asarray(value)
    if hasattr(value, "detach"):
        value = value.detach()
        is_bfloat16 = str(value.dtype) == "torch.bfloat16"
        return (value.float() if is_bfloat16 else value).numpy()
    return value


class _Forbidden(Exception):
    """The name of something that is no tensor."""


def _read_old(path):
    """What PyTorch wrote before 1.6: a row of pickles, which only it can read."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} is of a PyTorch before 1.6, or none of its files: reading it "
            "needs PyTorch, pip install 'galip-keras[torch]'"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch names what its reader of plain tensors met.
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise (_Forbidden(found[1]) if found else error) from error


class Stored:
    """A tensor that is still in its file: `np.asarray` reads it."""

    def __init__(self, storage, offset, shape, stride):
        self._storage = storage
        self._offset = offset
        self.shape = tuple(shape)
        self._stride = tuple(stride)
        reach = [(n - 1) * step for n, step in zip(self.shape, self._stride)]
        if min((offset, *self.shape, *self._stride), default=0) < 0 or (
            0 not in self.shape and offset + sum(reach) >= storage.count
        ):
            raise ValueError("A tensor is larger than its storage.")

    def __array__(self, dtype=None, copy=None):
        values = self._storage.read()
        steps = [step * values.itemsize for step in self._stride]
        tensor = np.lib.stride_tricks.as_strided(
            values[self._offset :], self.shape, steps, writeable=False
        )
        if self._storage.dtype == _DTYPES["BFloat16Storage"]:
            tensor = np.asarray(tensor.astype("<u4") << 16).view("<f4")
        return tensor if dtype is None else tensor.astype(dtype)


class _Storage:
    def __init__(self, path, entry, dtype, count):
        self.path = path
        self.entry = entry
        self.dtype = dtype
        self.count = count
        # What is compressed could be larger than it looks.
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or count * np.dtype(dtype).itemsize > entry.file_size
        ):
            raise ValueError(f"The storage {entry.filename} is no plain one.")

    def read(self):
        with zipfile.ZipFile(self.path) as archive:
            return np.frombuffer(archive.read(self.entry), self.dtype)


class _Module:
    """What stands in TorchScript for a module: its attributes, and no code."""

    attributes: ClassVar[dict] = {}

    def __setstate__(self, state):
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Reads the pickle of an archive, in which nothing can be called but what is here.

    `torch.load` refuses TorchScript where it is to run nothing, and has all tensors in
    memory at once.
    """

    def __init__(self, file, path, archive, root):
        super().__init__(file)
        self._path = path
        self._archive = archive
        self._root = root

    def find_class(self, module, name):
        if module.startswith("__torch__"):
            return _Module
        known = {
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

    def persistent_load(self, pid):
        _, dtype, key, _, count = pid
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        return _Storage(self._path, entry, dtype, count)


def _read_archive(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = name.removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("It is of a big-endian machine.")
        with archive.open(name) as file:
            state = _Reader(file, path, archive, root).load()
    return dict(_tensors(state)) if isinstance(state, _Module) else state


def _tensor(storage, offset, shape, stride, *_):
    return Stored(storage, offset, shape, stride)


def _tensors(module, prefix=""):
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, Stored):
            yield prefix + name, value
