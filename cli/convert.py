"""`galip convert`: turns the authors' checkpoints and CLIP weights into presets."""

import click

from galip_cli.quiet import quiet_imports


@click.command(
    epilog="""\b
Examples:
  galip convert pre_coco.pth --out galip_coco
  galip convert pre_cc12m.pth --out galip_cc12m --clip ViT-B-32.pt \\
      --vocabulary bpe_simple_vocab_16e6.txt.gz
"""
)
@click.argument("checkpoint", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(), metavar="DIR", help="Folder to write."
)
@click.option(
    "--clip",
    default="clip_vit_base_patch32",
    show_default=True,
    help="The CLIP that the checkpoint was trained on: a keras-hub preset, a preset "
    "folder, or weights by OpenAI (ViT-B-32.pt), open_clip or Hugging Face "
    "(model.safetensors).",
)
@click.option(
    "--vocabulary",
    type=click.Path(),
    help="OpenAI's bpe_simple_vocab_16e6.txt.gz or Hugging Face's tokenizer.json, if "
    "the CLIP is a file of weights.  [default: the vocabulary beside that file]",
)
@click.option(
    "--half",
    is_flag=True,
    help="Store the weights in half precision, which halves the files. Computation "
    "stays in float32.",
)
def convert(
    checkpoint: str, out: str, clip: str, vocabulary: str | None, half: bool
) -> None:
    """Convert the authors' CHECKPOINT (.pth, .safetensors) to a preset folder.

    A checkpoint of CLIP, by OpenAI's or Hugging Face's names, becomes a CLIP preset for
    --clip. Only tensors are read: a file that holds anything else is refused. Unless
    every tensor fits its place and none is left over, nothing is written.
    """
    with quiet_imports():
        from galip_keras.convert.galip import convert as convert_checkpoint
        from galip_keras.models.text_to_image import GALIPTextToImage
    model = convert_checkpoint(
        checkpoint, out, clip=clip, vocabulary=vocabulary, half=half
    )
    click.echo(out)
    following = f'galip train --dataset folder:IMAGES --clip "{out}"'
    if isinstance(model, GALIPTextToImage):
        following = f'galip sample "a red barn" --model "{out}"'
    click.echo(f"Next: {following}", err=True)
