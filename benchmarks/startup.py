"""Wall and processor time of `galip --help` and of the first sheet of images.

    python benchmarks/startup.py [--quick]

Every row is a cold process, in turn with the others. The bundled model is drawn by
NumPy when it is named, and by Keras when it is given as a folder, as any other preset.
`ratio` is relative to `python -c "import keras_hub"`.
"""

import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import common

from galip_keras.models.bundled import bundled_folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every command once")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    galip = pathlib.Path(sys.executable).with_name("galip")
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(bundled_folder("toybirds"), pathlib.Path(folder, "copy"))
        sample = [galip, "sample", "a red bird", "--out", pathlib.Path(folder, "out")]
        commands = {
            "import keras_hub": [sys.executable, "-c", "import keras_hub"],
            "galip --help": [galip, "--help"],
            "galip sample, by NumPy": sample,
            "galip sample, by Keras": [*sample, "--model", copy],
        }
        times = {name: [] for name in commands}
        for _ in range(1 if args.quick else 7):
            for name, command in commands.items():
                times[name].append(seconds(command))
    medians = {name: map(statistics.median, zip(*runs)) for name, runs in times.items()}
    rows = [dict(zip(("what", "s", "cpu_s"), (n, *x))) for n, x in medians.items()]
    for row in rows:
        row["ratio"] = row["s"] / rows[0]["s"]
    common.report("startup", rows, args.out, model="toybirds, a sheet of 16 images")


def seconds(command):
    """Wall time and processor time of a command."""
    start, spent = time.perf_counter(), processor_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, processor_seconds() - spent


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
