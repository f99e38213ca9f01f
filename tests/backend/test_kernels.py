"""JAX computes without the kernels for CPUs that slow GALIP down."""

import os

import child
import pytest

pytestmark = [pytest.mark.every_backend, pytest.mark.backend("jax")]

RELEASES = ("0.10.0", "0.10.1", "0.10.2")
FLAG = "--xla_cpu_experimental_ynn_fusion_type"

SCRIPT = """
import os, sys
if sys.argv[2] != "unset":
    os.environ["XLA_FLAGS"] = sys.argv[2]
__import__(sys.argv[1])
import jax, jaxlib
square = jax.ShapeDtypeStruct((512, 512), "float32")
compiled = jax.jit(lambda x, y: x @ y).lower(square, square).compile()
print(jaxlib.__version__, "ynn" in compiled.as_text())
"""


@pytest.mark.parametrize(
    ("module", "flags", "is_used"),
    [
        # Without GALIP they are the default.
        ("keras", "unset", True),
        ("galip_keras.backend", "unset", False),
        ("galip_keras.backend", "", False),
        ("galip_keras.backend", "--xla_cpu_enable_fast_math=false", False),
        # Who asks for them gets them.
        ("galip_keras.backend", f"{FLAG}=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT", True),
    ],
)
def test_slow_kernels_are_used_on_request(module, flags, is_used, monkeypatch):
    settings = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    release, found = child.run(SCRIPT, module, flags, **settings).stdout.split()
    if release not in RELEASES:
        pytest.skip(f"jaxlib {release} was not measured")
    assert found == str(is_used)


@pytest.mark.parametrize("flags", ["flags.txt", f"{FLAG}=", f" {FLAG}="])
def test_flags_of_the_user_stay(flags, monkeypatch):
    from galip_keras.backend.xla import avoid_slow_kernels

    monkeypatch.setenv("XLA_FLAGS", flags)
    avoid_slow_kernels()
    assert os.environ["XLA_FLAGS"] == flags
