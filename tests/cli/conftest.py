"""Fixtures for the tests of commands."""

import functools

import pytest

from galip_keras import GALIPTextToImage
from galip_keras.presets import loading


@pytest.fixture(scope="module")
def loaded_once():
    """Load each model once per module, although every command loads its own."""
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.lru_cache(loading.load_model)
        patch.setattr(loading, "load_model", cached)
        yield


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    GALIPTextToImage.from_preset("galip_tiny").save_to_preset(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def network(loaded_once, preset):
    return loading.load_model(preset)


@pytest.fixture
def error(galip):
    """Run a command that fails. Return its error, which is one line, and the code."""

    def run(*args):
        code, output, errors = galip(*args)
        assert output == ""
        assert errors.startswith("Error: ")
        assert errors.count("\n") == 1
        return code, errors

    return run


@pytest.fixture
def calls(monkeypatch):
    """The batch sizes of the calls of `generate`."""
    counts = []
    generate = GALIPTextToImage.generate

    def counted(self, inputs, **kwargs):
        counts.append(len(inputs))
        return generate(self, inputs, **kwargs)

    monkeypatch.setattr(GALIPTextToImage, "generate", counted)
    return counts
