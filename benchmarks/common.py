"""What the benchmarks share: machine, its compute rates, timing, table and JSON."""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
BACKENDS = ("tensorflow", "jax", "torch")

# The 3x3 convolutions that dominate the generator's work: batch, size, channels.
CONVOLUTIONS = [(8, 32, 512), (8, 64, 256), (8, 128, 128), (8, 224, 64)]


def machine():
    """Describe the machine and the installed versions, as plain values."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("keras", "keras-hub", "tensorflow", "jax", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        ),
        "load": round(os.getloadavg()[0], 2),
        "limits": {
            name: os.environ[name]
            for name in ("ONEDNN_MAX_CPU_ISA", "XLA_FLAGS", "MKL_ENABLE_INSTRUCTIONS")
            if name in os.environ
        },
        "python": platform.python_version(),
        **versions,
    }


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.partition(":")[::2] for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    sets = [name for name in ("avx2", "avx512f") if name in fields.get("flags", "")]
    return " ".join([fields.get("model name", "unknown"), *sets])


def installed():
    """List the backends that can be imported."""
    import importlib.util

    return [b for b in BACKENDS if importlib.util.find_spec(b)]


def seconds(fn, repeats=5, warm_up=2):
    """Return the median time of warm runs of `fn`, in seconds."""
    for _ in range(warm_up):
        fn()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_gib():
    """Return the peak memory of this process so far: the GPU's, if there is one."""
    import resource

    if os.environ.get("KERAS_BACKEND") == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**30
    if os.environ.get("KERAS_BACKEND") == "jax":
        import jax

        statistics = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            return statistics["peak_bytes_in_use"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def has_compiler():
    """Whether `torch.compile` finds a C++ compiler."""
    import shutil

    return any(map(shutil.which, ("g++", "clang++", "c++")))


def in_backend(script, backend, arguments):
    """Run a script's `--backend` part in a child process. Return its rows."""
    command = [sys.executable, script, "--backend", backend, *arguments]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"{script} failed on {backend}")
    return json.loads(result.stdout.splitlines()[-1])


def keep_to(cores):
    """Keep this process and its children to so many cores, if a number is given.

    On a machine that others use too, one core compares best: threads that wait for each
    other lose the most where there are fewer free cores than threads.
    """
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def use_cores():
    """Limit every backend to the cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    if os.environ["KERAS_BACKEND"] == "torch":
        import torch

        torch.set_num_threads(cores)
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(cores)


def compiled(fn, variables=(), jit=True):
    """Compile a function of tensors by the backend's compiler if `jit`."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, jit_compile=jit)
    if backend == "jax":
        import jax

        def of_values(values, *inputs):
            with keras.StatelessScope(list(zip(variables, values))):
                return fn(*inputs)

        run = jax.jit(of_values) if jit else of_values
        return lambda *inputs: run([v.value for v in variables], *inputs)
    import torch

    run = torch.compile(fn) if jit else fn

    def without_gradient(*inputs):
        with torch.inference_mode():
            return run(*inputs)

    return without_gradient


def rates(dtype="float32", quick=False):
    """Measure this backend's GFLOP/s for 3x3 convolutions and a matrix product."""
    import numpy as np
    from keras import ops

    rng = np.random.default_rng(0)

    def normal(*shape):
        return ops.cast(rng.standard_normal(shape, dtype="float32"), dtype)

    work = time_spent = 0.0
    for batch, size, channels in CONVOLUTIONS[: 1 if quick else None]:
        x = normal(batch, size, size, channels)
        kernel = normal(3, 3, channels, channels)
        time_spent += seconds(_convolution(x, kernel), repeats=3 if quick else 7)
        work += 2 * 9 * batch * size**2 * channels**2
    a = normal(2048, 2048)
    product = compiled(lambda a: ops.matmul(a, a), jit=_is_compiler())
    product_time = seconds(lambda: wait(product(a)), repeats=3 if quick else 7)
    return {
        "convolution_gflops": work / time_spent / 1e9,
        "product_gflops": 2 * 2048**3 / product_time / 1e9,
    }


def _is_compiler():
    return os.environ["KERAS_BACKEND"] != "torch"


def _convolution(x, kernel):
    if not _is_compiler():
        import torch

        # PyTorch's fastest layout. Keras' channels-last arrays are a view of it.
        x = x.permute(0, 3, 1, 2)
        kernel = kernel.permute(3, 2, 0, 1).contiguous(
            memory_format=torch.channels_last
        )
        run = torch.inference_mode()(torch.nn.functional.conv2d)
        return lambda: wait(run(x, kernel, padding=1))
    from keras import ops

    run = compiled(lambda x, kernel: ops.conv(x, kernel, padding="same"))
    return lambda: wait(run(x, kernel))


def wait(outputs):
    """Wait for the outputs, and copy one number at most."""
    if hasattr(outputs, "block_until_ready"):
        outputs.block_until_ready()
    else:
        float(outputs[(0,) * len(outputs.shape)])


def keep(rows, row):
    """Add a row, and show it at once: a long run may not reach its end."""
    rows.append(row)
    text = ", ".join(f"{key} {_text(value)}" for key, value in row.items())
    print(text, file=sys.stderr, flush=True)


def report(name, rows, out, **more):
    """Print the machine and a table of the rows, and write both as JSON."""
    described = machine()
    print(", ".join(f"{key} {value}" for key, value in described.items() if value))
    for key, value in more.items():
        print(f"{key}: {_text(value)}")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = [columns, *([_text(row.get(c)) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)))
    path = pathlib.Path(out) if out else HERE / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": described, **more, "rows": rows}
    path.write_text(json.dumps(_rounded(result), indent=2) + "\n")


def _text(value):
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def images(folder, count, size=320):
    """Write captioned JPEGs to a folder, about as hard to decode as photos."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        grain = rng.integers(-12, 13, (size, size, 3))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        path = pathlib.Path(folder, f"{i:05}.jpg")
        Image.fromarray(pixels).save(path, quality=90)
        path.with_suffix(".txt").write_text(f"an image of the number {i}\nnoise {i}\n")
