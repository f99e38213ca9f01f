"""Seconds per image of GALIP and of diffusion models, random weights, the same run.

    python benchmarks/diffusion.py [--models ldm,sd15] [--precisions float32,bfloat16]

Needs `diffusers` and `transformers`, and downloads nothing: the models are built from
their published sizes. Nobody waits for 250 steps: text encoder, one step and decoder
are timed, one after the other in memory, and `s/image` is scaled: text encoder + steps
x step + decoder. GALIP takes turns before and after each model. `x GALIP` is relative
to the median of these. GALIP goes from token ids to uint8 images of 224 pixels.

All steps but SD-Turbo's are guided: they run the network with and without the prompt,
as a batch of two. Stable Diffusion 3 is keras-hub's, on the backend that GALIP has, in
bfloat16 only and without its optional T5 encoder. The others run on PyTorch in the
layout channels last.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

import common
from sides import Side

# `published` is in millions of parameters, and ldm's without its decoder, which
# `counted` leaves out, too. `gib` is what the largest part takes in float32, and that
# of sd3 in bfloat16.
MODELS = {
    "ldm": {
        "title": "LDM text-to-image",
        "pixels": 256,
        "published": 1450,
        "counted": ("text", "step"),
        "steps": (250, 50),
        "gib": 5.5,
    },
    "sd15": {
        "title": "Stable Diffusion 1.5",
        "pixels": 512,
        "published": 1067,
        "steps": (25,),
        "gib": 6.0,
    },
    "turbo": {
        "title": "SD-Turbo",
        "pixels": 512,
        "published": 1290,
        "steps": (1,),
        "gib": 6.0,
    },
    "sd3": {
        "title": "Stable Diffusion 3",
        "pixels": 512,
        "published": 2987,
        "steps": (50,),
        "gib": 7.0,
    },
}
TOKENS = 77


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--galip", default="tensorflow", help="GALIP's backend")
    parser.add_argument("--seconds", type=float, default=20, help="for each part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help="use so many; all by default")
    parser.add_argument("--out", help="JSON file to write")
    args = parser.parse_args()
    common.keep_to(args.cores)
    if args.part:
        print(json.dumps(measure(args.part, args.precisions, args.seconds)))
        return
    rows = []
    for precision in args.precisions.split(","):
        with Side(args.galip, precision) as galip:
            rows += compare(args, precision, galip)
    common.report("diffusion", rows, args.out, galip=args.galip)


def compare(args, precision, galip):
    """Time every model in one precision, between GALIP's turns. Return the rows."""
    rows, all_turns, turns = [], [], turn(galip)
    for name in args.models.split(","):
        spec = MODELS[name]
        row = {"model": spec["title"], "precision": precision, "pixels": spec["pixels"]}
        reason = why_not(name, precision)
        parts = {} if reason else run_parts(args, name, precision)
        reason = reason or parts.get("error")
        if reason:
            common.keep(rows, {**row, "skipped": reason})
            continue
        after = turn(galip)
        beside = statistics.median(turns + after)
        all_turns, turns = all_turns + turns, after
        counted = spec.get("counted", parts)
        millions = sum(parts[part]["parameters"] for part in counted) / 1e6
        row |= {"million parameters": millions, "published": spec["published"]}
        for steps in spec["steps"]:
            found = {part: parts[part]["s"] for part in parts}
            total = found["text"] + steps * found["step"] + found["decoder"]
            times = {f"{part} s": s for part, s in found.items()}
            times |= {"s/image": total, "x GALIP": total / beside}
            common.keep(rows, {**row, "steps": steps, **times})
    own = {"model": "GALIP", "precision": precision, "pixels": 224, "steps": 1}
    return [{**own, "s/image": statistics.median(all_turns + turns)}, *rows]


def turn(galip):
    answer = galip.ask(task="image", form="compiled", batch=1, repeats=5)
    if "error" in answer:
        raise SystemExit(f"GALIP: {answer['error']}")
    return answer["times"]


def why_not(name, precision):
    """Return the reason to skip a model, or None."""
    if name == "sd3" and precision != "bfloat16":
        return "its 2 billion parameters take 8 GB in float32"
    gib = MODELS[name]["gib"] * (1 if name == "sd3" or precision == "float32" else 0.6)
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        free = int(fields["MemAvailable"].split()[0]) / 2**20
    except OSError:
        pass
    return f"needs {gib:.1f} GiB, {free:.1f} are free" if gib > free else None


def run_parts(args, name, precision):
    """Time the parts of a model, each in a process of its own."""
    parts = {}
    backend = args.galip if name == "sd3" else "torch"
    for part in ("text", "step", "decoder"):
        command = [sys.executable, __file__, "--part", f"{name} {part}"]
        command += ["--precisions", precision, "--seconds", str(args.seconds)]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
        if run.returncode:
            return {"error": f"its {part} ended with {run.returncode}"}
        parts[part] = json.loads(run.stdout.splitlines()[-1])
    return parts


def measure(part, precision, seconds):
    """Time one part of a model: at least one warm run, until the seconds are over."""
    common.use_cores()
    model, part = part.split()
    build = stable_diffusion_3 if model == "sd3" else diffusers_part
    run, parameters = build(model, part, precision)
    run()
    start, times = time.perf_counter(), []
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    s, peak = statistics.median(times), common.peak_gib()
    return {"s": s, "runs": len(times), "parameters": parameters, "peak GiB": peak}


def diffusers_part(model, part, precision):
    """Build a part of a latent diffusion model. Return its call and its parameters."""
    import torch

    width = {"ldm": 1280, "sd15": 768, "turbo": 1024}[model]
    rows = 1 if model == "turbo" else 2
    side = MODELS[model]["pixels"] // 8
    dtype = getattr(torch, precision)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if part == "text":
        module = text_encoder(model, width)
        inputs = [torch.ones(rows, TOKENS, dtype=torch.int64)]
    elif part == "step":
        module = unet(model, width)
        text = torch.randn(rows, TOKENS, width, dtype=dtype)
        inputs = [torch.randn(rows, 4, side, side, dtype=dtype), torch.tensor(1), text]
    else:
        module = autoencoder()
        inputs = [torch.randn(1, 4, side, side, dtype=dtype)]
    module = module.eval().to(device, dtype).to(memory_format=torch.channels_last)
    inputs = [x.to(device) for x in inputs]
    call = module.decode if part == "decoder" else module

    @torch.inference_mode()
    def run():
        output = call(*inputs, return_dict=False)[0]
        float(output.flatten()[0])

    return run, sum(x.numel() for x in module.parameters())


def unet(model, width):
    """Build the network of a step. The class' defaults are Stable Diffusion's."""
    from diffusers import UNet2DConditionModel

    # The second version has heads of 64 channels.
    second = {"attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
    sizes = second if model == "turbo" else {}
    return UNet2DConditionModel(cross_attention_dim=width, **sizes)


def autoencoder():
    """Build the autoencoder that all three share."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )


def text_encoder(model, width):
    if model == "ldm":
        from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion

        # The defaults are the published model's.
        config = pipeline_latent_diffusion.LDMBertConfig()
        return pipeline_latent_diffusion.LDMBertModel(config)
    import transformers

    layers, heads = {"sd15": (12, 12), "turbo": (23, 16)}[model]
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    return transformers.CLIPTextModel(config)


def stable_diffusion_3(model, part, precision):
    """Build a part of keras-hub's medium model. Return its call and its parameters."""
    import keras
    from keras import ops
    from keras_hub.src.models.stable_diffusion_3.mmdit import MMDiT
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    def normal(*shape):
        return keras.random.normal(shape, dtype=precision)

    latent_shape = (MODELS[model]["pixels"] // 8,) * 2 + (16,)
    if part == "text":
        networks = [clip(768, 12, 12, precision), clip(1280, 32, 20, precision)]
        inputs = [{"token_ids": ops.ones((2, TOKENS), "int32")}] * 2
    elif part == "step":
        networks = [
            MMDiT(2, 1536, 24, 24, 192, latent_shape=latent_shape, dtype=precision)
        ]
        names = ("latent", "context", "pooled_projection", "timestep")
        # Two CLIPs' tokens, and as many zeros in the place of T5's.
        shapes = (latent_shape, (2 * TOKENS, 4096), (2048,), (1,))
        inputs = [{name: normal(2, *shape) for name, shape in zip(names, shapes)}]
    else:
        channels = [128, 256, 512, 512]
        networks = [
            VAEBackbone(channels, [2] * 4, channels[::-1], [3] * 4, dtype=precision)
        ]
        inputs = [normal(1, *latent_shape)]
    variables = [v for network in networks for v in network.variables]

    def call(*inputs):
        calls = [n.decode if part == "decoder" else n for n in networks]
        return [f(x, training=False) for f, x in zip(calls, inputs)]

    # As Keras does by default: TensorFlow without XLA on a CPU.
    jit = keras.backend.backend() == "jax"
    compiled = common.compiled(call, variables, jit)

    def run():
        common.wait(keras.tree.flatten(compiled(*inputs))[-1])

    return run, sum(math.prod(v.shape) for v in variables)


def clip(width, layers, heads, dtype):
    from keras_hub.models import CLIPTextEncoder

    sizes = (49408, width, width, layers, heads, 4 * width)
    activation = "quick_gelu" if width == 768 else "gelu"
    return CLIPTextEncoder(*sizes, activation, layers - 2, dtype=dtype)


if __name__ == "__main__":
    main()
