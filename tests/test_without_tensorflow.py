"""JAX and PyTorch where neither TensorFlow nor its libraries are installed."""

import subprocess
import sys

import child
import extras
import numpy as np
import pytest

from galip_keras import GALIPTextToImage

# They start processes on the other backends.
pytestmark = [pytest.mark.backend("tensorflow"), pytest.mark.slow]

BACKENDS = pytest.mark.parametrize("backend", ["jax", "torch"])

DRAW_AND_SAVE = f"""{child.WITHOUT_TENSORFLOW}
import galip_keras
import numpy as np

folder = sys.argv[1]
model = galip_keras.GALIPTextToImage.from_preset("toybirds")
image = model.generate("A red bird", seed=3)
model.save_to_preset(folder + "/preset")
again = galip_keras.GALIPTextToImage.from_preset(folder + "/preset")
np.savez(folder + "/images.npz", first=image, again=again.generate("a red bird", 3))
assert not [name for name in sys.modules if name.startswith("tensorflow")]
"""

FIT = f"""{child.WITHOUT_TENSORFLOW}
import numpy as np
import tiny

gan = tiny.gan()
gan.compile()
before = tiny.values(gan.generator.trainable_variables)
data = tiny.batch(8)
history = gan.fit(data, batch_size=4, epochs=2, verbose=0).history
assert all(np.isfinite(values).all() for values in history.values()), history
after = tiny.values(gan.generator.trainable_variables)
assert any((old != new).any() for old, new in zip(before, after))
"""

GALIP = f"""{child.WITHOUT_TENSORFLOW}
from galip_cli.main import main

main()
"""


@BACKENDS
def test_a_preset_draws_the_same_image_and_is_saved(backend, tmp_path):
    extras.need(backend, backend)
    child.run(DRAW_AND_SAVE, tmp_path, KERAS_BACKEND=backend)
    expected = GALIPTextToImage.from_preset("toybirds").generate("a red bird", seed=3)
    with np.load(tmp_path / "images.npz") as images:
        np.testing.assert_array_equal(images["first"], images["again"])
        difference = np.abs(images["first"].astype(int) - expected)
    assert difference.max() <= 1
    # The preset is read by another backend, with TensorFlow.
    again = GALIPTextToImage.from_preset(str(tmp_path / "preset"))
    np.testing.assert_array_equal(again.generate("a red bird", seed=3), expected)


@BACKENDS
def test_training_on_arrays(backend):
    extras.need(backend, backend)
    child.run(FIT, KERAS_BACKEND=backend)


@pytest.mark.full_size
@BACKENDS
def test_the_model_of_the_paper(backend):
    extras.need(backend, backend)
    script = f"""{child.WITHOUT_TENSORFLOW}
from galip_keras.models.text_to_image import build

model = build("galip_vit_base_patch32", "random")
assert model.generate("a red bird", seed=0).shape == (224, 224, 3)
"""
    child.run(script, KERAS_BACKEND=backend)


@pytest.mark.parametrize(
    ("command", "backend", "line"),
    [
        (
            "train --dataset toybirds --preset galip_tiny --steps 1",
            "jax",
            "reading a dataset needs tensorflow: pip install tensorflow",
        ),
        (
            "export --format saved_model --out exported",
            "torch",
            "`galip export` needs tensorflow: pip install tensorflow",
        ),
        (
            "evaluate --dataset toybirds",
            "jax",
            "`galip evaluate` needs tensorflow: pip install tensorflow",
        ),
        (
            "info",
            "tensorflow",
            "this backend needs tensorflow: pip install tensorflow, or set "
            "KERAS_BACKEND to jax or torch",
        ),
    ],
)
def test_a_command_that_needs_it_says_so(command, backend, line, tmp_path):
    if backend != "tensorflow":
        extras.need(backend, backend)
    result = subprocess.run(
        [sys.executable, "-c", GALIP, *command.split()],
        env=child.environment(KERAS_BACKEND=backend),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (1, f"Error: {line}.\n")


def test_a_public_name_that_needs_it_says_so():
    script = f"""{child.WITHOUT_TENSORFLOW}
import galip_keras

try:
    galip_keras.evaluate
except ModuleNotFoundError as error:
    print(error)
"""
    extras.need("jax", "jax")
    said = child.run(script, KERAS_BACKEND="jax").stdout.strip()
    assert said == "galip_keras.evaluate needs tensorflow: pip install tensorflow"
