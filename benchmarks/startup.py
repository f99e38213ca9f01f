"""Wall time of `galip --help`, of the first image and of a warm one.

    python benchmarks/startup.py [--quick]

Every row but the warm image is a cold process. `ratio` is relative to
`python -c "import keras_hub"`, which is timed in turn with the others.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every command once")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    galip = pathlib.Path(sys.executable).with_name("galip")
    with tempfile.TemporaryDirectory() as folder:
        preset = pathlib.Path(folder, "preset")
        warm = warm_image(preset)
        sample = [galip, "sample", "a red bird", "--model", preset]
        commands = {
            "import keras_hub": [sys.executable, "-c", "import keras_hub"],
            "galip --help": [galip, "--help"],
            "galip sample, to the PNG": [*sample, "--out", pathlib.Path(folder, "out")],
        }
        times = {name: [] for name in commands}
        for _ in range(1 if args.quick else 7):
            for name, command in commands.items():
                times[name].append(wall_time(command))
    medians = {name: statistics.median(runs) for name, runs in times.items()}
    medians["a warm image"] = warm
    whole = medians["import keras_hub"]
    rows = [{"what": n, "s": s, "ratio": s / whole} for n, s in medians.items()]
    common.report("startup", rows, args.out, model="galip_tiny, from a preset folder")


def warm_image(preset):
    from galip_keras.models.text_to_image import build

    model = build("galip_tiny")
    model.save_to_preset(str(preset))
    return common.seconds(lambda: model.generate("a red bird", seed=0))


def wall_time(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
