"""`galip export`."""

import click

from galip_cli.options import MODEL, require
from galip_cli.quiet import quiet_imports

# By format: optional packages that write it and run it.
_FORMATS = {
    "saved_model": (),
    "litert": ("ai_edge_litert",),
    "onnx": ("tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
}


@click.command()
@MODEL
@click.option(
    "--format",
    "file_format",
    required=True,
    type=click.Choice(list(_FORMATS)),
    help="saved_model includes tokenizer and noise; the others are a text encoder and "
    "a generator, with the tokenizer in a file.",
)
@click.option(
    "--quantize",
    type=click.Choice(("float16", "int8")),
    help="For litert: store weights in half precision or in 8 bits. Arithmetic stays "
    "in float32.",
)
@click.option("--out", required=True, metavar="DIR", help="New folder for the export.")
def export(model, file_format, quantize, out):
    """Write a model for production.

    The export is loaded by its own runtime in a new process, and compared with the
    model on eight prompts. It is deleted if they differ by more than rounding or, if it
    is quantized, if PSNR falls below 40 dB in half precision or 25 dB in 8 bits. Prints
    DIR, which works as a MODEL of `galip sample`.

    \b
    Examples:
      galip export --format saved_model --out served/galip/1
      galip export --model runs/birds --format litert --quantize int8 --out birds_int8
    """
    if quantize and file_format != "litert":
        raise click.UsageError("--quantize is for litert.")
    require(file_format, _FORMATS[file_format], "export")
    with quiet_imports():
        from galip_keras.export import writers
        from galip_keras.sampling.sampler import load_keras
    network = load_keras(model)
    manifest = writers.export(network, out, file_format, quantize, name=model)
    check = manifest["check"]
    size = sum(file["bytes"] for file in manifest["files"].values())
    click.echo(
        f"{size / 1e6:.1f} MB. On eight prompts, pixels differ from the model's "
        f"by at most {check['pixel_difference']:.0f} of 255 grey levels "
        f"({check['psnr']:.0f} dB), embeddings by {check['embedding_difference']:.1g}.",
        err=True,
    )
    click.echo(out)
