"""Images per second from prepared records to training batches, with captions.

python benchmarks/pipeline.py [--crop-size 256] [--batch-size 32] [--quick]
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="few images")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        row = measure(args, pathlib.Path(folder))
    common.report("pipeline", [row], args.out)


def measure(args, folder):
    from galip_keras import datasets
    from galip_keras.datasets.pipeline import training_batches
    from galip_keras.models.text_to_image import build

    count, repeats = (32, 2) if args.quick else (512, 5)
    preprocessor = build("galip_tiny").preprocessor
    source = folder / "images"
    source.mkdir()
    common.images(source, count)
    start = time.perf_counter()
    builder = datasets.prepare(f"folder:{source}", str(folder / "data"))
    prepared = time.perf_counter() - start
    batches = training_batches(
        builder,
        preprocessor,
        crop_size=args.crop_size,
        batch_size=args.batch_size,
        seed=0,
    ).as_numpy_iterator()
    next(batches)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(count // args.batch_size):
            next(batches)
        times.append(time.perf_counter() - start)
    return {
        "crop": args.crop_size,
        "batch": args.batch_size,
        "preparing, images/s": count / prepared,
        "images/s": count
        // args.batch_size
        * args.batch_size
        / statistics.median(times),
    }


if __name__ == "__main__":
    main()
