"""Python processes with the same backend, package and helpers as the tests."""

import os
import pathlib
import subprocess
import sys

import keras


def without(packages):
    """The beginning of a script for a machine that lacks packages: a regex."""
    return f"""
import re, sys

class Finder:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if re.fullmatch({packages!r}, name.partition(".")[0]):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path = [Finder(x) for x in sys.meta_path]
"""


WITHOUT_TENSORFLOW = without("tensorflow.*")


def environment(**variables):
    """The environment of a child process, with variables added."""
    tests = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(tests.parent), str(tests)])
    backend = keras.backend.backend()
    return {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend, **variables}


# As in `conftest.py`.
_FASTER = "import gc; gc.set_threshold(50_000)\n"


def run(script, *arguments, **variables):
    """Run a script that must succeed. Return a `subprocess.CompletedProcess`."""
    result = subprocess.run(
        [sys.executable, "-c", _FASTER + script, *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result
