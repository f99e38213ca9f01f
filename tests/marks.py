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
