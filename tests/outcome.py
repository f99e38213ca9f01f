"""Read what a training run left in its folder, and compare it with another run."""

import json

import h5py
import numpy as np


def contents(folder):
    """Every number in the last checkpoint of a run."""
    checkpoint = max(folder.glob("checkpoints/step_????????"))
    found = {"state": json.loads((checkpoint / "state.json").read_text())}
    with h5py.File(checkpoint / "model.weights.h5") as file:
        file.visititems(
            lambda name, x: found.update({name: x[()]} if hasattr(x, "shape") else {})
        )
    return found


def metrics(folder):
    """The lines of `metrics.jsonl`, without the speed."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in line.items() if k != "pictures_per_second"} for line in lines
    ]


def assert_same(actual_folder, expected_folder):
    """Check that two runs agree bit for bit."""
    actual, expected = contents(actual_folder), contents(expected_folder)
    assert actual.keys() == expected.keys()
    assert actual.pop("state") == expected.pop("state")
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, name)
    assert metrics(actual_folder) == metrics(expected_folder)
