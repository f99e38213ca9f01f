"""The flags of XLA, as JAX uses it."""

import os

import jaxlib

# The releases whose kernels for CPUs, by YNNPACK, make a training step a fifth slower
# than XLA's own (benchmarks/README.md). XLA aborts at a flag that it does not know.
_SLOW_KERNELS = ("0.10.0", "0.10.1", "0.10.2")
_FLAG = "xla_cpu_experimental_ynn_fusion_type"


def avoid_slow_kernels() -> None:
    """Add a flag to `XLA_FLAGS` that turns JAX' slow kernels for CPUs off.

    JAX reads the variable when it starts to compute, so this comes before. A value that
    the user gave the flag stays, and so does the name of a file of flags.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    is_file_name = flags.strip() and not flags.lstrip().startswith("-")
    if jaxlib.__version__ in _SLOW_KERNELS and not is_file_name and _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=".lstrip()
