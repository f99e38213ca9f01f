"""Units for bfloat16, from what Linux tells of the processor."""

import pytest

from galip_keras import processor


@pytest.mark.parametrize(
    ("flags", "limit", "expected"),
    [
        ("fpu avx512f avx512_bf16 sse", None, True),
        ("fpu avx512f amx_bf16 amx_tile", None, True),
        ("fpu avx512f avx512_vnni", None, False),
        ("fpu avx512f avx512_bf16", "avx2", False),
        ("fpu avx512f avx512_bf16", "AVX512_CORE_BF16", True),
    ],
)
def test_units_for_bfloat16(flags, limit, expected, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    text = f"processor\t: 0\nflags\t\t: {flags}\n"
    monkeypatch.setattr("pathlib.Path.read_text", lambda path: text)
    assert processor.has_bfloat16() == expected


def test_units_are_unknown_without_proc(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert not processor.has_bfloat16()
