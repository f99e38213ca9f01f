"""Markers that go together."""

import pytest


def slow_on_torch(test):
    """Train on the backend that compiles nothing, since any backend would do."""
    for mark in (
        pytest.mark.slow,
        pytest.mark.every_backend,
        pytest.mark.backend("torch"),
    ):
        test = mark(test)
    return test


def export_on_tensorflow(parameter, name):
    """A parameter of a test on PyTorch, where those that export need TensorFlow."""
    backend = "tensorflow" if name.startswith("export") else "torch"
    return pytest.param(parameter, id=name, marks=pytest.mark.backend(backend))
