"""Python in a process of its own, with the same backend, package and helpers."""

import os
import pathlib
import subprocess
import sys

import keras


def environment(**variables):
    tests = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(tests.parent), str(tests)])
    backend = keras.backend.backend()
    return {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend, **variables}


def run(script, *arguments, **variables):
    """Runs a script that has to succeed. Returns a `subprocess.CompletedProcess`."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result
