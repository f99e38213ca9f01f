"""The established FID packages, loaded without torchvision."""

import importlib
import sys
from unittest import mock

import extras
import pytest

_PARTS = ("", ".datasets", ".models", ".transforms", ".transforms.functional")


def load(name):
    """Import a module of theirs, or skip the test if it is not installed.

    They import torchvision for features that no test here uses.
    """
    extras.need("torch", "torch")
    with pytest.MonkeyPatch.context() as patch:
        for part in _PARTS:
            patch.setitem(sys.modules, f"torchvision{part}", mock.MagicMock())
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            extras.without_torchvision(name.partition(".")[0])
