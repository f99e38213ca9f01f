"""What all tests share: seeds, and markers that choose a backend."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As many processes as cores: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests compile the same training step, some of them in processes of their own.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "galip-test-jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import keras
import pytest
from drawn import draw_circles


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def less_to_compile():
    """`galip_tiny` is `tiny.ARCHITECTURE`."""
    import tiny

    from galip_keras.models.architectures import ARCHITECTURES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "galip_tiny", tiny.ARCHITECTURE)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Circles, as arguments of `train` and `evaluate`."""
    folder = tmp_path_factory.mktemp("data")
    return {
        "dataset": f"folder:{draw_circles(folder / 'circles')}",
        "data_dir": folder / "prepared",
    }


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """Another CLIP, as a preset."""
    import tiny

    from galip_keras.models.random_clip import random_clip

    folder = tmp_path_factory.mktemp("scorer") / "clip"
    for part in random_clip(**tiny.ARCHITECTURE["random_clip"], seed=1):
        part.save_to_preset(str(folder))
    return str(folder)


@pytest.fixture
def galip(capfd):
    """Runs a command in this process. Returns exit code, output and errors."""

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
    """Both hubs, as folders: where one is, by its name."""
    import shutil
    import types

    import huggingface_hub
    import kagglehub

    def place(name):
        folder = tmp_path / "hub" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def upload(name, source):
        shutil.copytree(source, place(name), dirs_exist_ok=True)

    monkeypatch.setattr(
        huggingface_hub, "create_repo",
        lambda repo_id, exist_ok: types.SimpleNamespace(repo_id=repo_id),
    )  # fmt: skip
    monkeypatch.setattr(
        huggingface_hub, "file_exists",
        lambda repo_id, filename: (place(repo_id) / filename).is_file(),
    )  # fmt: skip
    monkeypatch.setattr(
        huggingface_hub, "upload_file",
        lambda path_or_fileobj, path_in_repo, repo_id: shutil.copy(
            path_or_fileobj, place(repo_id) / path_in_repo
        ),
    )  # fmt: skip
    monkeypatch.setattr(
        huggingface_hub, "upload_folder",
        lambda repo_id, folder_path: upload(repo_id, folder_path),
    )  # fmt: skip
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name: str(place(name))
    )
    monkeypatch.setattr(kagglehub, "model_upload", upload)
    monkeypatch.setattr(kagglehub, "model_download", lambda name: str(place(name)))
    return place


def pytest_collection_modifyitems(items):
    # What takes longest comes first. A process never gives the memory of full-size
    # models back, and two of those do not fit: these tests are one module.
    markers = ("full_size", "slow")
    items.sort(key=lambda item: [m not in item.keywords for m in markers])


def pytest_runtest_setup(item):
    for marker in item.iter_markers("backend"):
        if keras.backend.backend() not in marker.args:
            pytest.skip(f"runs on {', '.join(marker.args)} only")
