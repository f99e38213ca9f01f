"""Named tensors of a checkpoint, each to be taken once."""

import re

import numpy as np


class Tensors:
    """Named NumPy arrays in PyTorch's layout, each to be taken once."""

    def __init__(self, tensors, prefix=""):
        self.tensors = tensors
        self.prefix = prefix

    def under(self, prefix):
        """The same arrays, names relative to a longer prefix."""
        return Tensors(self.tensors, self.prefix + prefix)

    def shape(self, name):
        return tuple(self._find(name).shape)

    def peek(self, name):
        # Only now: a file need not be in memory as a whole.
        return np.asarray(self._find(name)).astype("float32", copy=False)

    def _find(self, name):
        if self.prefix + name not in self.tensors:
            raise ValueError(f"The checkpoint has no tensor {self.prefix + name!r}.")
        return self.tensors[self.prefix + name]

    def take(self, name):
        value = self.peek(name)
        del self.tensors[self.prefix + name]
        return value

    def count(self, pattern):
        """How many numbers the one group of a regular expression matches."""
        found = (re.match(pattern, name) for name in self.tensors)
        return len({match[1] for match in found if match})


def assign(variable, value):
    if tuple(variable.shape) != value.shape:
        raise ValueError(
            f"The checkpoint's tensor for {variable.path} has the shape {value.shape}; "
            f"{tuple(variable.shape)} was expected."
        )
    variable.assign(value)


def assign_conv(layer, tensors):
    assign(layer.kernel, tensors.take("weight").transpose(2, 3, 1, 0))
    if layer.use_bias:
        assign(layer.bias, tensors.take("bias"))


def assign_dense(layer, tensors):
    assign(layer.kernel, tensors.take("weight").T)
    assign(layer.bias, tensors.take("bias"))


def assign_norm(layer, tensors):
    assign(layer.gamma, tensors.take("weight"))
    assign(layer.beta, tensors.take("bias"))


def without_module(state):
    return {name.removeprefix("module."): value for name, value in state.items()}


def check_empty(tensors):
    if tensors.tensors:
        names = sorted(tensors.tensors)
        raise ValueError(
            f"The checkpoint holds {len(names)} tensors that the model has no place "
            f"for: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}."
        )
