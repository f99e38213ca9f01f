"""What the processor can do."""

import os
from pathlib import Path

# Values of oneDNN's variable that forbid it the units for bfloat16.
_WITHOUT_BFLOAT16 = {
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
}


def has_bfloat16() -> bool:
    """Whether the processor has units for bfloat16 that libraries may use.

    They are known on Linux: AVX-512 with bfloat16, or AMX. Elsewhere the answer is no.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() in _WITHOUT_BFLOAT16:
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
