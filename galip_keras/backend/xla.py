"""The flags of XLA, as JAX uses it."""

import os

import jaxlib

# The releases whose kernels for CPUs, by YNNPACK, make a training step a fifth slower
# than XLA's own (benchmarks/README.md). XLA aborts at a flag that it does not know.
_SLOW_KERNELS = ("0.10.0", "0.10.1", "0.10.2")
_FLAG = "xla_cpu_experimental_ynn_fusion_type"


def avoid_slow_kernels() -> None:
    """Let JAX compile for a CPU without the kernels that are slow.

    It has to be called before JAX computes anything. Who sets the flag of these kernels
    keeps them, and the environment stays as it is, for other libraries and processes.
    """
    given = os.environ.get("XLA_FLAGS")
    flags = given or ""
    # It may also name a file.
    is_file = flags.strip() and not flags.lstrip().startswith("-")
    if jaxlib.__version__ not in _SLOW_KERNELS or is_file or _FLAG in flags:
        return
    from jaxlib import xla_client

    os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}="
    # XLA reads the variable once: now.
    _ = xla_client.CompileOptions().executable_build_options.debug_options
    if given is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = given
