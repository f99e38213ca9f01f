"""One model in one precision in a process of its own, which times itself on request.

A parent opens a `Side` and asks it for times. The child reads one JSON object per line
and answers each with one:

- `task`: `"image"`, from token ids to uint8 images; `"generator"`, from noise and text
  embeddings to float images; `"step"`, a training step with the text encoder;
  `"product"`, that of two square matrices, whose size is `batch`.
- `form`: `"eager"`, `"channels last"` (the authors' only) or `"compiled"`.
- `batch`, `repeats`: ints.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import common
import numpy as np

# The arrays that both sides get.
LATENT_DIM, TOKENS = 100, 77
DTYPES = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16"}


class Side:
    """A child process.

    Args:
        name: string. `"authors"` or a backend.
        precision: string. A key of `DTYPES`.
        options: more arguments of the child.
    """

    def __init__(self, name, precision, *options):
        environment = {
            **os.environ,
            "KERAS_BACKEND": "torch" if name == "authors" else name,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # JAX would take most of a GPU's memory at once, and show no peak.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, precision, *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, timeout=3600, **request):
        """Return the answer, a dict: `times` and more, or `error`, one line."""
        late = threading.Event()

        def stop():
            late.set()
            self.process.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if answer:
            return json.loads(answer)
        status = self.process.wait()
        return {"error": "out of time" if late.is_set() else f"ended with {status}"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("authors", *common.BACKENDS))
    parser.add_argument("precision", choices=DTYPES)
    parser.add_argument("--checkout", help="the authors' repository")
    parser.add_argument("--weights", help="file of the authors' weights")
    parser.add_argument("--tiny", action="store_true", help="a tiny model")
    args = parser.parse_args()
    # Libraries may print. The answers keep standard output to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    common.use_cores()
    use_precision(args.precision)
    runs = {}
    model, failure = _build(args)
    for line in sys.stdin:
        try:
            if failure:
                model, failure = _build(args)
            if failure:
                raise failure
            answer = _answer(model, runs, **json.loads(line))
        except Exception as error:
            _release(runs)
            answer = {"error": _line(error)}
            # A step that ran out of memory may have taken the weights along.
            failure = error
        print(json.dumps(answer), file=answers, flush=True)


def _build(args):
    """Build the model at once, so that a parent can open a side ahead of its turn."""
    try:
        return _model(args), None
    except Exception as error:
        return None, error


def _model(args):
    if args.name != "authors":
        return Ours(args.precision, args.weights, args.tiny)
    from authors_side import Authors

    return Authors(args.precision, args.checkout, args.weights)


def _answer(model, runs, task, form, batch, repeats=1, save=None):
    key, answer = (task, form, batch), {}
    if key not in runs:
        if task != "image":
            # Only images are asked for in turns.
            _release(runs)
        start = time.perf_counter()
        runs[key] = model.run(*key)
        outputs = runs[key]()
        answer["first s"] = time.perf_counter() - start
        if save:
            np.save(save, outputs)
    answer["times"] = []
    for _ in range(repeats):
        start = time.perf_counter()
        runs[key]()
        answer["times"].append(time.perf_counter() - start)
    return {**answer, "peak GiB": common.peak_gib()}


def _line(error):
    text = str(error).strip() or type(error).__name__
    if "out of memory" in text.lower() or "RESOURCE_EXHAUSTED" in text:
        return "out of memory"
    return f"{type(error).__name__}: {text.splitlines()[0][:120]}"


def _release(runs):
    runs.clear()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def use_precision(precision):
    """Allow or forbid TF32, which frameworks otherwise each choose for themselves."""
    backend = os.environ["KERAS_BACKEND"]
    if backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
    if backend == "jax" and precision != "bfloat16":
        import jax

        # Before JAX starts, since GALIP sets flags for it.
        from galip_keras.backend import is_cpu

        products = "tensorfloat32" if precision == "tf32" else "highest"
        if not is_cpu():
            jax.config.update("jax_default_matmul_precision", products)
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")


def inputs(batch, size=256, embedding_dim=512):
    """Make the arrays of a batch, the same for every side."""
    rng = np.random.default_rng(0)
    token_ids = np.zeros((batch, TOKENS), "int32")
    token_ids[:, :12] = rng.integers(1, 500, (batch, 12))
    # The end of a text has the highest id. Any other model finds the end by it.
    token_ids[:, 12] = 513
    return {
        "images": rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32"),
        "token_ids": token_ids,
        "noise": rng.standard_normal((batch, LATENT_DIM), dtype="float32"),
        "text": rng.standard_normal((batch, embedding_dim), dtype="float32"),
    }


class Ours:
    """Our model on the backend of the environment."""

    def __init__(self, precision, weights=None, tiny=False):
        self.precision = precision
        self.networks = _networks(weights, tiny)
        self.size = 64 if tiny else 256

    @functools.cached_property
    def model(self):
        """The model that makes images. In half precision, its weights are, too."""
        from galip_keras import GALIPBackbone, GALIPTextToImage

        model = GALIPTextToImage(GALIPBackbone(self.networks[0]))
        if self.precision == "bfloat16":
            return model.in_precision("bfloat16")
        return model

    def run(self, task, form, batch):
        """Return a function that does the task once, to the end."""
        from keras import ops

        if task == "product":
            return self._product(batch)
        embedding_dim = self.networks[0].clip.embedding_dim
        arrays = inputs(batch, self.size, embedding_dim)
        text = arrays.pop("text")
        if task == "image":
            token_ids, noise = arrays["token_ids"], arrays["noise"]
            return lambda: self.model.generate_from_token_ids(token_ids, noise)
        if task == "step":
            gan = self._gan(form)
            return lambda: gan.train_on_batch(arrays)
        tensors = [ops.convert_to_tensor(x) for x in (arrays["noise"], text)]
        generator = self.model.backbone.generator
        make = common.compiled(
            lambda noise, text: generator(noise, text),
            generator.variables,
            jit=form == "compiled",
        )
        return lambda: common.wait(make(*tensors))

    def _product(self, size):
        from keras import ops

        draw = np.random.default_rng(0).standard_normal((size, size), dtype="float32")
        a = ops.cast(ops.convert_to_tensor(draw), DTYPES[self.precision])
        jit = os.environ["KERAS_BACKEND"] == "jax"
        product = common.compiled(lambda a: ops.matmul(a, a), jit=jit)
        return lambda: common.wait(product(a))

    def _gan(self, form):
        from galip_keras import GALIP
        from galip_keras.models.precision import set_precision

        if self.precision == "bfloat16":
            for network in self.networks:
                set_precision(network, "mixed_bfloat16")
        gan = GALIP(*self.networks)
        gan.compile(jit_compile="auto" if form == "compiled" else False)
        return gan


def _networks(weights, tiny):
    """Build generator and discriminator of random weights, or of the authors'."""
    if weights is None:
        from galip_keras import MateD
        from galip_keras.models.text_to_image import build

        name = "galip_tiny" if tiny else "galip_vit_base_patch32"
        generator = build(name, clip="random").backbone.generator
        return generator, MateD.for_clip(generator.clip)
    from galip_keras.convert import galip as convert

    states = {"clip": {}, "netG": {}, "netD": {}, "netC": {}}
    with np.load(weights) as file:
        for name in file.files:
            network, _, tensor = name.partition(".")
            states[network][tensor] = file[name]
    clip = convert.clip_from_state(states["clip"])
    generator = convert.generator_from_state(states["netG"], clip)
    discriminator = convert.discriminator_from_state(
        states["netD"], states["netC"], generator.clip
    )
    return generator, discriminator


if __name__ == "__main__":
    # The authors' side imports this module by its name.
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()
