"""Python processes with the same backend, package and helpers as the tests."""

import os
import pathlib
import subprocess
import sys

import keras


def environment(**variables):
    """The environment of a child process, with variables added."""
    tests = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(tests.parent), str(tests)])
    backend = keras.backend.backend()
    return {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend, **variables}


def run(script, *arguments, **variables):
    """Run a script that must succeed. Return a `subprocess.CompletedProcess`."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result
