"""The established packages, without torchvision, which nothing here needs of them."""

import importlib
import sys
from unittest import mock

import pytest

_PARTS = ("", ".datasets", ".models", ".transforms", ".transforms.functional")


def load(name):
    """Imports a module of theirs. The test is skipped where it is not installed."""
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        for part in _PARTS:
            patch.setitem(sys.modules, f"torchvision{part}", mock.MagicMock())
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            pytest.skip(f"needs pip install --no-deps {name.partition('.')[0]}")
