"""Seconds per training step and peak memory, full size, fed by the real pipeline.

    python benchmarks/train_step.py [--batch-size 4] [--precision float32] [--quick]

`waits` is the part of a step spent waiting for the data pipeline. `first s` is the time
of the first step with compilation. R is the machine's convolution rate.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import tempfile
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=5, help="warm steps to time")
    parser.add_argument("--backends", default=",".join(common.installed()))
    parser.add_argument("--quick", action="store_true", help="a tiny model, two steps")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--rates", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    if args.backend:
        print(json.dumps(rates(args) if args.rates else measure(args)))
        return
    options = ["--batch-size", str(args.batch_size), "--steps", str(args.steps)]
    options += ["--precision", args.precision] + ["--quick"] * args.quick
    rows, rates_by_backend = [], []
    for backend in args.backends.split(","):
        convolution = []
        # A separate process keeps the rates' arrays out of the step's memory.
        for part in (["--rates"], [], ["--rates"])[: 2 if args.quick else 3]:
            result = common.in_backend(__file__, backend, options + part)
            if part:
                convolution.append(result["convolution_gflops"])
            else:
                rows.append(result)
        rates_by_backend.append(statistics.mean(convolution))
    rate = max(rates_by_backend)
    for row in rows:
        row["s x R, TFLOP"] = row["s/step"] * rate / 1e3
    common.report(
        "train_step",
        rows,
        args.out,
        precision=args.precision,
        R_convolution_gflops=rate,
    )


def rates(args):
    common.use_cores()
    return common.rates(args.precision.removeprefix("mixed_"), args.quick)


def measure(args):
    """Measure the row of one backend."""
    common.use_cores()
    import keras

    from galip_keras import GALIP, MateD, backend, datasets
    from galip_keras.datasets import embeddings
    from galip_keras.datasets.pipeline import training_batches
    from galip_keras.models.precision import set_precision
    from galip_keras.models.text_to_image import build
    from galip_keras.training.memory import trimmed

    name = "galip_tiny" if args.quick else "galip_vit_base_patch32"
    model = build(name, clip="random")
    generator = model.backbone.generator
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "images")
        source.mkdir()
        common.images(source, 32)
        builder = datasets.prepare(
            f"folder:{source}", str(pathlib.Path(folder, "data"))
        )
        files = embeddings.cache(builder, generator.clip, model.preprocessor)
        set_precision(model.backbone, args.precision)
        discriminator = MateD.for_clip(generator.clip, dtype=args.precision)
        # As in `galip train`.
        if backend.is_cpu():
            backend.repeatable()
        gan = GALIP(generator, discriminator, average=True)
        gan.compile()
        batches = training_batches(
            builder,
            model.preprocessor,
            crop_size=64 if args.quick else 256,
            batch_size=args.batch_size,
            seed=0,
            embeddings=files,
            latent_dim=generator.latent_dim,
        ).as_numpy_iterator()
        waits, steps = [], []
        for _ in range(1 + (2 if args.quick else args.steps)):
            start = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - start)
            # It returns once the losses are numbers, so the step is complete. The first
            # one compiles.
            with contextlib.nullcontext() if steps else trimmed():
                gan.train_on_batch(batch)
            steps.append(time.perf_counter() - start)
    return {
        "backend": keras.backend.backend(),
        "jit": bool(gan.jit_compile),
        "batch": args.batch_size,
        "first s": steps[0],
        "s/step": statistics.median(steps[1:]),
        "waits": sum(waits[1:]) / sum(steps[1:]),
        "peak GiB": common.peak_gib(),
    }


if __name__ == "__main__":
    main()
