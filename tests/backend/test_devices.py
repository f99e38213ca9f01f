"""Two devices with half a batch each give the numbers of one with the whole."""

import child
import numpy as np
import pytest

TOLERANCE = 1e-5

# The number of devices that a CPU stands for is set before the backend starts.
SCRIPT = """
import os, sys
if os.environ["KERAS_BACKEND"] == "jax":
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = flags + " --xla_force_host_platform_device_count=2"
else:
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    virtual = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, virtual)
import keras, numpy as np, tensorflow as tf, tiny
from galip_keras import backend

for count in (1, 2):
    with backend.use(count) as is_shared:
        assert is_shared == (count > 1)
        model = tiny.gan(average=True)
        model.compile()
        # As in training, the noise of the whole batch is dealt out in order.
        batches = tf.data.Dataset.from_tensor_slices(tiny.batch(8)).batch(8).repeat()
        model.fit(batches, steps_per_epoch=2, verbose=0, shuffle=False)
        losses = {t.name: float(t.result()) for t in model.trackers}
        weights = [keras.ops.convert_to_numpy(v) for v in model.weights]
    losses = {k: v for k, v in losses.items() if "norm" not in k}
    np.savez(sys.argv[count], *weights, **losses)
"""

pytestmark = [
    pytest.mark.every_backend,
    pytest.mark.slow,
    pytest.mark.backend("tensorflow", "jax"),
]


def test_two_devices_end_in_the_weights_of_one(tmp_path):
    """Equal losses mean that mismatched captions roll over the whole batch."""
    paths = [tmp_path / name for name in ("one.npz", "two.npz")]
    child.run(SCRIPT, *paths)
    one, two = map(np.load, paths)
    assert {*one} == {*two}
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
