"""Fixtures that all tests share, and markers that choose a backend."""

import gc
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
# Tiny models compile for longer than they run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ.get("KERAS_BACKEND") != "jax":
    os.environ["XLA_FLAGS"] = " ".join(
        [
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            os.environ.get("XLA_FLAGS", ""),
        ]
    )

# Nothing comes from, or stays in, the cache of whoever runs the tests.
os.environ["GALIP_HOME"] = os.path.join(tempfile.gettempdir(), f"galip-{os.getpid()}")

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


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty cache of fetched files, licences accepted, no waiting for a network."""
    from galip_keras.downloads import licenses

    for name in [x for x in os.environ if x.startswith("GALIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GALIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(licenses.VARIABLE, "1")
    monkeypatch.setattr(licenses, "_accepted", set())
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    return tmp_path / "home"


@pytest.fixture
def web(home, monkeypatch):
    """A web on loopback that stands for all others, with nothing in it."""
    extras.need("weights", "gdown")
    import web as webs

    with webs.serving() as web:
        webs.redirect(web, monkeypatch.setattr)
        monkeypatch.setenv("HF_ENDPOINT", f"{web.address}/huggingface.co")
        yield web


def pytest_collection_modifyitems(items):
    for item in items:
        if not {"slow", "full_size"} & item.keywords.keys():
            item.add_marker("fast")
    # Start with the slowest tests, so that no process is left with one at the end: the
    # longest modules happen to be late in the alphabet. No process gives the memory of
    # full-size models back, and two would not fit.
    items.sort(key=lambda item: str(item.path), reverse=True)
    markers = ("full_size", "slow")
    items.sort(key=lambda item: [m not in item.keywords for m in markers])


def pytest_collection_finish():
    # What is imported stays. Looking through it for garbage, over and over while models
    # are traced, takes a fifth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_runtest_setup(item):
    for marker in item.iter_markers("extra"):
        extras.need(*marker.args)
    # A test's own marker counts, not that of its module.
    marker = item.get_closest_marker("backend")
    if marker and keras.backend.backend() not in marker.args:
        backend = marker.args[0]
        reason = f"runs on {' and '.join(marker.args)}: KERAS_BACKEND={backend}"
        if backend != "tensorflow":
            reason += f', after pip install "galip-keras[{backend}]"'
        pytest.skip(reason)
    # Full-size models run for longer than they compile.
    is_tiny = "full_size" not in item.keywords
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", is_tiny)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        options = {"disable_meta_optimizer": is_tiny}
        tf.config.optimizer.set_experimental_options(options)
