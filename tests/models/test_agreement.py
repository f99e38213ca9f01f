"""One step from the same weights ends in the same weights on every backend."""

import child
import extras
import numpy as np
import pytest

TOLERANCE = 1e-5

SCRIPT = """
import sys
import keras, numpy as np, tiny

model = tiny.gan()
# JAX would compile each operation of an eager step by itself, which takes longer.
model.compile(run_eagerly=keras.config.backend() != "jax")
# Shuffled, each backend would mismatch other texts.
model.fit(tiny.batch(), batch_size=4, shuffle=False, verbose=0)
weights = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
np.savez(sys.argv[1], *weights)
"""


def one_step(backend, path):
    child.run(SCRIPT, path, KERAS_BACKEND=backend)
    with np.load(path) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return one_step("tensorflow", tmp_path_factory.mktemp("step") / "step.npz")


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_one_step_ends_in_the_same_weights(ours, other, tmp_path):
    extras.need(other, other)
    theirs = one_step(other, tmp_path / "step.npz")
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)
