"""PyTorch's files of weights, read without running what may be in them."""

import collections
import pickle
import re
import zipfile
from pathlib import Path

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


def read_state(path):
    """Reads a PyTorch file that holds tensors and plain containers only.

    Args:
        path: string. A file that `torch.save` or `torch.jit.save` wrote. Of a
            TorchScript archive the parameters and buffers are read, by their dotted
            names; its code is not looked at.

    Returns:
        What the file holds, tensors as NumPy arrays, which stay on disk until they are
        used where the file allows it.

    Raises:
        ValueError: for a file that is something else or carries code. Nothing in it is
            executed.
        ImportError: where PyTorch is not installed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if _is_torchscript(path):
        return _read_torchscript(path)
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Reading PyTorch files needs PyTorch: pip install 'galip-keras[torch]'"
        ) from error
    options = {"map_location": "cpu", "weights_only": True}
    try:
        state = torch.load(path, mmap=zipfile.is_zipfile(path), **options)
    except Exception as error:
        # PyTorch names what its reader of plain tensors met; garbage it reports in many
        # ways.
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise ValueError(
                f"{path} is no file of PyTorch weights, or holds more than tensors and "
                "plain containers."
            ) from error
        raise _carries_code(path, found[1]) from error
    return to_numpy(state)


def to_numpy(value):
    """Tensors, also those in dicts and lists, as NumPy arrays."""
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_numpy(item) for item in value]
    if hasattr(value, "detach"):
        value = value.detach()
        is_bfloat16 = str(value.dtype) == "torch.bfloat16"
        return (value.float() if is_bfloat16 else value).numpy()
    return value


def _carries_code(path, what):
    return ValueError(
        f"{path} holds more than tensors and plain containers ({what}) and was not "
        "loaded: such a file could run code."
    )


# === TorchScript ===


def _is_torchscript(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path):
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as file:
                module = _Reader(file, archive, name.removesuffix("data.pkl")).load()
        return dict(_tensors(module))
    except _Forbidden as error:
        raise _carries_code(path, error) from error
    except Exception as error:
        raise ValueError(f"{path} is damaged, or no archive of TorchScript.") from error


class _Forbidden(Exception):
    """The name of something that is no tensor."""


class _Module:
    """What stands in an archive for a module: its attributes, and no code."""

    def __setstate__(self, state):
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Reads the pickle of an archive, in which nothing can be called but what is here.

    `torch.load` refuses TorchScript where it is to run nothing.
    """

    def __init__(self, file, archive, root):
        super().__init__(file)
        self._archive = archive
        self._root = root

    def find_class(self, module, name):
        if module.startswith("__torch__"):
            return _Module
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
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
        # What is compressed could be larger than it looks.
        if entry.file_size > entry.compress_size or "/" in key:
            raise ValueError(f"The storage {key} is no plain one.")
        return np.frombuffer(self._archive.read(entry), dtype)[:count]


def _tensor(storage, offset, shape, stride, *_):
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if min((offset, *shape, *stride)) < 0 or last >= len(storage):
        raise ValueError("A tensor is larger than its storage.")
    steps = [step * storage.itemsize for step in stride]
    tensor = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)
    if storage.dtype == "<u2":
        return (tensor.astype("<u4") << 16).view("<f4")
    return tensor


def _tensors(module, prefix=""):
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            yield prefix + name, value
