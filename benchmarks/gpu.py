"""Our model on a GPU, beside the chip's own rate and the authors' code.

    benchmarks/gpu.sh [--authors CHECKOUT] [--wheels FOLDER] [--out FOLDER] [--quick]

Images per second of the generator and of training steps, on JAX and PyTorch, in fp32,
TF32 and bfloat16. The most telling comes first, and every measurement has a limit. What
no time is left for is said so. Each answer is written to `gpu.json` at once. Then the
full-size reference tests run, as far as `../shared/reference` is there.

`share` is the work of the direct form, 65.6 GFLOP per image, divided by the time and by
the rate of this chip's matrix products in the same precision. Peaks of JAX are those of
the process so far.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import common
from sides import Side

DIRECT_GFLOP = 65.6
# Seconds that one answer may take, and that the tests get at the end.
LIMIT, TESTS = 100, 90
# Task, place of the form in the side's list, and batch size, the most telling first.
_MOST = [("product", 0, 8192), ("generator", 0, 64), ("step", 0, 64)]
_REST = [("generator", 0, batch) for batch in (1, 16, 256)]
PASSES = [
    ("bfloat16", [*_MOST, *_REST]),
    ("tf32", _MOST),
    ("float32", _MOST),
    ("bfloat16", [("generator", 1, 64), ("step", 1, 64), ("step", 0, 16)]),
    ("tf32", [*_REST, ("generator", 1, 64)]),
    ("float32", [*_REST, ("generator", 1, 64)]),
    (
        "bfloat16",
        [("generator", form, size) for form in (2, 1) for size in (1, 16, 256)],
    ),
]
QUICK = ("float32", [("product", 0, 256), ("generator", 0, 2), ("step", 0, 2)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=500, help="for everything")
    parser.add_argument("--authors", help="a checkout of the authors' repository")
    parser.add_argument("--out", default=str(common.HERE / "results"), help="folder")
    parser.add_argument("--quick", action="store_true", help="a tiny model, no tests")
    args = parser.parse_args()
    run = Run(args, time.monotonic() + args.seconds)
    todo = list(requests(args))
    for i, request in enumerate(todo):
        run.open(*request[:2])
        # The next one to be needed builds its model in the meantime.
        ahead = (r[:2] for r in todo[i + 1 :] if r[:2] not in run.sides)
        run.open(*next(ahead, request[:2]))
        run.measure(*request)
        if todo[i + 1 : i + 2] and todo[i + 1][:2] != request[:2]:
            # JAX never gives memory back.
            run.close(*request[:2])
    run.close_all()
    results = [] if args.quick else run.tests()
    common.report("gpu", run.table(), run.file, chip=run.chip, tests=results)


def requests(args):
    """List what is measured: side, precision, task, form and batch size, by weight."""
    forms = {"jax": ["compiled"], "torch": ["eager", "compiled"]}
    forms = {name: forms[name] for name in common.installed() if name in forms}
    if args.authors and not args.quick:
        forms["authors"] = ["channels last", "compiled", "eager"]
    for precision, wanted in [QUICK] if args.quick else PASSES:
        for name, names in forms.items():
            for task, place, batch in wanted:
                if (name, task) == ("authors", "product") or place >= len(names):
                    continue
                # Compiled code cannot be differentiated twice.
                if (name, task, names[place]) != ("torch", "step", "compiled"):
                    yield (name, precision, task, names[place], batch)


class Run:
    """The open sides and the rows so far."""

    def __init__(self, args, deadline):
        self.args = args
        self.deadline = deadline - (0 if args.quick else TESTS)
        self.end = deadline
        self.sides, self.rows, self.chip = {}, [], chip()
        self.file = pathlib.Path(args.out, "gpu.json")
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def measure(self, name, precision, task, form, batch):
        """Add the row of one measurement, also if it fails."""
        row = {"code": name, "precision": precision, "what": task, "form": form}
        row |= {"batch": batch}
        limit = min(LIMIT, self.deadline - time.monotonic())
        if limit < 5:
            answer = {"error": "no time was left"}
        else:
            side = self.sides[name, precision]
            asked = {"task": task, "form": form, "batch": batch}
            answer = side.ask(limit, **asked, repeats=2 if self.args.quick else 10)
            if side.process.poll() is not None:
                # It took too long, or all of the memory.
                del self.sides[name, precision]
        if "times" in answer:
            row["s"] = statistics.median(answer["times"])
            row |= {key: answer[key] for key in ("first s", "peak GiB")}
        else:
            row["error"] = answer["error"]
        common.keep(self.rows, row)
        self.file.write_text(json.dumps({"chip": self.chip, "rows": self.rows}))

    def open(self, name, precision):
        """Start a side, unless it is open."""
        if (name, precision) not in self.sides:
            options = ["--tiny"] * self.args.quick
            if name == "authors":
                options += ["--checkout", self.args.authors]
            self.sides[name, precision] = Side(name, precision, *options)

    def close(self, name, precision):
        """End a side, unless it ended by itself."""
        if (name, precision) in self.sides:
            side = self.sides.pop((name, precision))
            side.process.kill()
            side.process.wait()

    def close_all(self):
        for key in list(self.sides):
            self.close(*key)

    def table(self):
        """Return the rows with rates and shares."""
        rates = {}
        for row in self.rows:
            if row["what"] == "product" and "s" in row:
                rate = 2 * row["batch"] ** 3 / row["s"] / 1e12
                row["TFLOP/s"] = rate
                rates[row["precision"]] = max(rate, rates.get(row["precision"], 0))
        for row in self.rows:
            if row["what"] != "product" and "s" in row:
                row["images/s"] = row["batch"] / row["s"]
            is_known = "s" in row and row["precision"] in rates and not self.args.quick
            if row["what"] == "generator" and is_known:
                row["TFLOP/s"] = DIRECT_GFLOP * row["images/s"] / 1e3
                row["share"] = row["TFLOP/s"] / rates[row["precision"]]
        return self.rows

    def tests(self):
        """Run the reference tests of both backends side by side."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-n", "0", "-m", "", "tests/models/test_reference.py"]
        # TF32 is less exact than the tests.
        exact = {"NVIDIA_TF32_OVERRIDE": "0"}
        exact |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
        exact |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        running = {
            backend: subprocess.Popen(
                command,
                cwd=common.HERE.parent,
                env={**os.environ, **exact, "KERAS_BACKEND": backend},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for backend in common.installed()
            if backend != "tensorflow"
        }
        results = []
        for backend, process in running.items():
            try:
                output = process.communicate(
                    timeout=max(self.end - time.monotonic(), 1)
                )
                (self.file.parent / f"tests_{backend}.txt").write_text(output[0])
                last = output[0].strip().splitlines()[-1]
            except subprocess.TimeoutExpired:
                process.kill()
                last = "no time was left"
            results.append(f"{backend}: {last}")
        return results


def chip():
    """Name the GPU, or say that there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return "no GPU"


if __name__ == "__main__":
    main()
