"""The benchmark for GPUs, on a machine without one and without TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import child
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.extra("jax", "jax")
@pytest.mark.extra("torch", "torch")
def test_it_measures_all_it_can_without_tensorflow(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    # Python runs it at its start, in every process.
    (site / "sitecustomize.py").write_text(child.WITHOUT_TENSORFLOW)
    environment = child.environment(PYTHON=sys.executable)
    environment["PYTHONPATH"] = f"{site}:{environment['PYTHONPATH']}"
    command = [ROOT / "benchmarks" / "gpu.sh", "--quick", "--out", tmp_path]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["code"] for row in rows} == {"jax", "torch"}
    assert {row["what"] for row in rows} == {"product", "generator", "step"}
    assert [row.get("error") for row in rows] == [None] * len(rows)
    assert all(row["s"] > 0 for row in rows)
