"""Seconds per image of the full-size generator on every backend.

    python benchmarks/sampling.py [--batch-sizes 1,8,32] [--precision float32] [--quick]
    python benchmarks/sampling.py --precision float32,bfloat16
    python benchmarks/sampling.py --exports     # also exported models

Times the generator alone, in every form that `galip_keras.backend.choices` knows. The
chosen one is marked. `cpu s` is processor time per core, which other processes on the
machine disturb less. Rows that say so, and exports, go from prompts to images.

`share` is the work of the direct form divided by the time and by R, the best
convolution rate of all backends. It can exceed 1, since the other forms do less work.
"""

import argparse
import functools
import json
import os
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument(
        "--precision", default="float32", help="one, or several with commas"
    )
    parser.add_argument("--backends", default=",".join(common.installed()))
    parser.add_argument("--quick", action="store_true", help="a tiny model, one batch")
    parser.add_argument("--exports", action="store_true", help="also time exports")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(time_export(args)))
        return
    if args.backend:
        print(json.dumps(write_exports(args) if args.exports else measure(args)))
        return
    options = ["--batch-sizes", args.batch_sizes, "--precision", args.precision]
    options += ["--quick"] * args.quick
    parts = [
        common.in_backend(__file__, backend, options)
        for backend in args.backends.split(",")
    ]
    rate = max(part["rates"]["convolution_gflops"] for part in parts)
    rows = [row for part in parts for row in part["rows"]]
    if args.exports:
        rows += common.in_backend(__file__, "tensorflow", [*options, "--exports"])
    for row in rows:
        row["s x R, GFLOP"] = row["s/image"] * rate
        row["share"] = parts[0]["direct_gflop"] / row["s x R, GFLOP"]
    common.report(
        "sampling",
        rows,
        args.out,
        precision=args.precision,
        direct_gflop_an_image=parts[0]["direct_gflop"],
        R_convolution_gflops=rate,
        product_gflops=max(part["rates"]["product_gflops"] for part in parts),
    )


def measure(args):
    """Measure the rates and rows of one backend."""
    common.use_cores()
    from galip_keras.models.text_to_image import build

    rates = [common.rates(quick=args.quick)]
    name = "galip_tiny" if args.quick else "galip_vit_base_patch32"
    model = build(name, clip="random")
    rows = []
    for precision in args.precision.split(","):
        generator = model.in_precision(precision).backbone.generator
        for form, jit, is_chosen in _choices(generator):
            for batch in _batches(args):
                row = time_generator(generator, jit, batch, args)
                mark = " *" * is_chosen
                rows.append({"precision": precision, "form": form + mark, **row})
    rates.append(common.rates(quick=args.quick))
    mean = {key: sum(rate[key] for rate in rates) / 2 for key in rates[0]}
    return {"rows": rows, "rates": mean, "direct_gflop": direct_gflop(generator)}


# Format and quantization.
EXPORTS = (
    ("saved_model", None),
    ("litert", None),
    ("litert", "float16"),
    ("litert", "int8"),
    ("onnx", None),
    ("openvino", None),
)


def write_exports(args):
    """Export the model in every format and time each in a child process."""
    import tempfile
    from pathlib import Path

    from galip_keras.export.runtimes import BFLOAT16
    from galip_keras.export.writers import export
    from galip_keras.models.text_to_image import build

    name = "galip_tiny" if args.quick else "galip_vit_base_patch32"
    model = build(name, clip="random")
    form = {"backend": "tensorflow", "form": "from prompts"}
    rows = []
    for precision in args.precision.split(","):
        # A new model in any case: the first image of each is to be timed.
        found = time_generate(model.in_precision(precision), args)
        rows += [{"precision": precision, **form, **row} for row in found]
    for file_format, quantize in EXPORTS[1:2] if args.quick else EXPORTS:
        form = {
            "backend": "export",
            "form": " ".join(filter(None, (file_format, quantize))),
        }
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "export")
            export(model, out, file_format, quantize)
            options = ["--folder", str(out), "--batch-sizes", args.batch_sizes]
            options += ["--quick"] * args.quick
            for precision in args.precision.split(","):
                if precision != "float32" and file_format not in BFLOAT16:
                    continue
                chosen = [*options, "--precision", precision]
                found = common.in_backend(__file__, "tensorflow", chosen)
                rows += [{"precision": precision, **form, **row} for row in found]
    return rows


def time_export(args):
    """Time an exported model in its runtime."""
    from galip_keras.export import runtimes

    start = time.perf_counter()
    model = runtimes.load(args.folder, args.precision)
    loaded = time.perf_counter() - start
    size = sum(file["bytes"] for file in model.manifest["files"].values())
    sizes = {"load s": loaded, "MB": size / 1e6}
    return [{**row, **sizes} for row in time_generate(model, args)]


def time_generate(model, args):
    """Time a model from prompts to images, text encoder included."""
    rows = []
    for batch in _batches(args):
        prompts, seeds = ["a red bird on a branch"] * batch, list(range(batch))

        def run(prompts=prompts, seeds=seeds):
            model.generate(prompts, seeds)

        start = time.perf_counter()
        run()
        first = time.perf_counter() - start
        median = common.seconds(run, 3 if batch > 8 else 7, 1)
        row = {"jit": None, "batch": batch, "first s": first}
        rows.append({**row, "s/image": median / batch})
    return rows


def _batches(args):
    return [2] if args.quick else [int(b) for b in args.batch_sizes.split(",")]


def _choices(generator):
    """Every form, compiled or not, and whether it is the one that is chosen."""
    from galip_keras import backend
    from galip_keras.backend import choices

    chosen_jit = backend.should_jit(generator)
    with backend.compiled(chosen_jit):
        chosen = (backend.resize_form(8, 16), chosen_jit)
    original = backend.resize_form
    for form in (choices.PRODUCTS, choices.TRANSPOSED, choices.DIRECT):
        backend.resize_form = functools.partial(_form, form)
        for jit in _compilers():
            yield form, jit, (form, jit) == chosen
    backend.resize_form = original


def _form(form, old_size, size):
    from galip_keras.backend import choices

    if form == choices.PRODUCTS and size >= 1.5 * old_size:
        return form
    is_doubling = size == 2 * old_size
    return form if form == choices.TRANSPOSED and is_doubling else choices.DIRECT


def _compilers():
    # Without jit, JAX runs operation by operation, which nobody uses for sampling.
    # torch.compile needs a C++ compiler, which few machines have.
    compilers = {"tensorflow": (True, False), "jax": (True,), "torch": (False,)}
    return compilers[os.environ["KERAS_BACKEND"]]


def time_generator(generator, jit, batch, args):
    import numpy as np
    from keras import ops

    rng = np.random.default_rng(0)
    noise = ops.convert_to_tensor(
        rng.standard_normal((batch, generator.latent_dim), dtype="float32")
    )
    text = ops.convert_to_tensor(
        rng.standard_normal((batch, generator.clip.embedding_dim), dtype="float32")
    )
    run = common.compiled(
        lambda noise, text: generator(noise, text), generator.variables, jit
    )
    start = time.perf_counter()
    common.wait(run(noise, text))
    first = time.perf_counter() - start
    repeats = 3 if args.quick or batch > 8 else 7
    start = time.process_time()
    median = common.seconds(lambda: common.wait(run(noise, text)), repeats, 1)
    cpu = (time.process_time() - start) / len(os.sched_getaffinity(0))
    return {
        "backend": args.backend,
        "jit": jit,
        "batch": batch,
        "first s": first,
        "s/image": median / batch,
        "cpu s": cpu / (repeats + 1) / batch,
    }


def direct_gflop(generator):
    """Count the work of the direct form: convolutions and vision transformer."""
    clip, side = generator.clip, generator.clip.grid_size
    width = clip.hidden_dim
    tokens = side**2 + 1
    products = clip.num_layers * (12 * tokens * width**2 + 2 * tokens**2 * width)
    layers = [(generator.conv, side), (generator.bridge_predictor.conv, side)]
    for block in generator.bridge_predictor.fusion_blocks:
        layers += [(block.conv_1, side), (block.conv_2, side)]
    for block in generator.generator_blocks:
        layers += [(block.conv_1, block.size), (block.conv_2, block.size)]
        layers += [(block.shortcut, block.size)] if block.shortcut else []
    layers.append((generator.to_rgb, generator.image_size))
    for layer, size in layers:
        products += size**2 * layer.kernel.shape[-1] * _fan_in(layer)
    return 2 * products / 1e9


def _fan_in(layer):
    height, width, channels, _ = layer.kernel.shape
    return height * width * channels


if __name__ == "__main__":
    main()
