"""PyTorch's files of weights, read without running what may be in them."""

import os
import re


def read_state(path):
    """Reads a PyTorch file that holds tensors and plain containers only.

    Args:
        path: string. A file that `torch.save` wrote.

    Returns:
        What the file holds, tensors as NumPy arrays.

    Raises:
        ValueError: for a file that is something else or carries code. Nothing in it is
            executed.
        ImportError: where PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Reading PyTorch files needs PyTorch: pip install 'galip-keras[torch]'"
        ) from error
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch names what its reader of plain tensors met; garbage it reports in many
        # ways.
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise ValueError(
                f"{path} is no file of PyTorch weights, or holds more than tensors and "
                "plain containers."
            ) from error
        raise ValueError(
            f"{path} holds more than tensors and plain containers ({found[1]}) and was "
            "not loaded: such a file could run code."
        ) from error
    return to_numpy(state)


def to_numpy(value):
    """Tensors, also those in dicts and lists, as NumPy arrays, floats in float32."""
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_numpy(item) for item in value]
    if hasattr(value, "detach"):
        value = value.detach()
        return (value.float() if value.is_floating_point() else value).numpy()
    return value
