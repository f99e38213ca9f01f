"""Fixtures that all tests share, and markers that choose a backend."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests run in as many processes as cores: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests compile the same training step, some in processes of their own.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "galip-test-jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import extras
import keras
import pytest
from drawn import draw_circles


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def less_to_compile():
    """Make `galip_tiny` mean `tiny.ARCHITECTURE`."""
    import tiny

    from galip_keras.models.architectures import ARCHITECTURES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "galip_tiny", tiny.ARCHITECTURE)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of circles, as arguments of `train` and `evaluate`."""
    folder = tmp_path_factory.mktemp("data")
    return {
        "dataset": f"folder:{draw_circles(folder / 'circles')}",
        "data_dir": folder / "prepared",
    }


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """A preset of another CLIP than the model's."""
    import tiny

    from galip_keras.models.random_clip import random_clip

    folder = tmp_path_factory.mktemp("scorer") / "clip"
    for part in random_clip(**tiny.ARCHITECTURE["random_clip"], seed=1):
        part.save_to_preset(str(folder))
    return str(folder)


@pytest.fixture
def galip(capfd):
    """Run a command in this process. Return exit code, output and errors."""

    from galip_cli.main import main

    def run(*args):
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(arg) for arg in args])
        output, errors = capfd.readouterr()
        return exit_.value.code, output, errors

    return run


@pytest.fixture
def hubs(monkeypatch, tmp_path):
    """Both hubs as folders: `hubs("user/model")` is the folder of a model."""
    from hubs import Hubs

    doubles = Hubs(tmp_path / "hub")
    doubles.replace(monkeypatch)
    return doubles


def pytest_collection_modifyitems(items):
    for item in items:
        if not {"slow", "full_size"} & item.keywords.keys():
            item.add_marker("fast")
    # Start with the slowest tests. All full-size tests are in one module, since no
    # process gives the memory of these models back, and two would not fit.
    markers = ("full_size", "slow")
    items.sort(key=lambda item: [m not in item.keywords for m in markers])


def pytest_runtest_setup(item):
    for marker in item.iter_markers("extra"):
        extras.need(*marker.args)
    for marker in item.iter_markers("backend"):
        if keras.backend.backend() not in marker.args:
            backend = marker.args[0]
            reason = f"runs on {' and '.join(marker.args)}: KERAS_BACKEND={backend}"
            if backend != "tensorflow":
                reason += f', after pip install "galip-keras[{backend}]"'
            pytest.skip(reason)
