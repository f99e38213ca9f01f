"""Two devices with half a batch each give the numbers of one with the whole."""

import child
import numpy as np
import pytest

TOLERANCE = 1e-5

# The number of devices that a CPU stands for is set before the backend starts.
SCRIPT = """
import os, sys
path, count = sys.argv[1], int(sys.argv[2])
if os.environ["KERAS_BACKEND"] == "jax":
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
else:
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    virtual = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    tf.config.set_logical_device_configuration(cpu, virtual)
import keras, numpy as np, tensorflow as tf, tiny
from galip_keras import backend

with backend.use(count) as is_shared:
    assert is_shared == (count > 1)
    model = tiny.gan(average=True)
    model.compile()
    # As in training, the noise of the whole batch is dealt out in order.
    batches = tf.data.Dataset.from_tensor_slices(tiny.batch(8)).batch(8).repeat()
    model.fit(batches, steps_per_epoch=2, verbose=0, shuffle=False)
    losses = {t.name: keras.ops.convert_to_numpy(t.result()) for t in model.trackers}
    weights = [keras.ops.convert_to_numpy(v) for v in model.weights]
np.savez(path, *weights, **{k: v for k, v in losses.items() if "norm" not in k})
"""

pytestmark = [
    pytest.mark.every_backend,
    pytest.mark.slow,
    pytest.mark.backend("tensorflow", "jax"),
]


def two_steps(count, path):
    child.run(SCRIPT, path, count)
    with np.load(path) as file:
        return dict(file)


def test_two_devices_end_in_the_weights_of_one(tmp_path):
    """Equal losses mean that mismatched captions roll over the whole batch."""
    one, two = (two_steps(n, tmp_path / f"{n}.npz") for n in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) > 50
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=TOLERANCE)


COMPILED = """
from galip_keras import backend
backend.repeatable()
import tiny, warnings
warnings.simplefilter("error", UserWarning)
gan = tiny.gan()
gan.compile(jit_compile=True)
assert gan.jit_compile
gan.fit(tiny.batch(), batch_size=4, verbose=0, shuffle=False)
"""


@pytest.mark.backend("tensorflow")
def test_repeatable_steps_are_compiled_too():
    child.run(COMPILED)
