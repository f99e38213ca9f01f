"""What all tests share: seeds, and markers that choose a backend."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)


def pytest_runtest_setup(item):
    for marker in item.iter_markers("backend"):
        if keras.backend.backend() not in marker.args:
            pytest.skip(f"runs on {', '.join(marker.args)} only")
