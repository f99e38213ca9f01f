"""`galip convert`: the authors' checkpoints and CLIP weights to presets."""

import click

from galip_cli.quiet import quiet_imports


@click.command(
    epilog="""\b
Examples:
  galip convert pre_coco.pth --out galip_coco
  galip convert pre_cc12m.pth --out galip_cc12m --clip ViT-B-32.pth \\
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
    help="The CLIP it was trained on: a keras-hub preset, a preset folder, or a file "
    "of OpenAI's weights.",
)
@click.option(
    "--vocabulary",
    type=click.Path(),
    help="OpenAI's bpe_simple_vocab_16e6.txt.gz, where the CLIP is a file of weights.",
)
def convert(checkpoint, out, clip, vocabulary):
    """Convert the authors' CHECKPOINT (.pth) to a preset folder.

    A state dict of CLIP by OpenAI's names becomes a CLIP preset for `--clip`. Only
    tensors are read; a file that holds anything else is refused.
    """
    with quiet_imports():
        from galip_keras.convert import convert as convert_checkpoint
    convert_checkpoint(checkpoint, out, clip=clip, vocabulary=vocabulary)
    click.echo(out)
    click.echo(f"Next: galip info {out}", err=True)
