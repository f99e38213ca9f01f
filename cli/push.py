"""`galip push`: uploads a preset."""

import click

from galip_cli.quiet import quiet_imports


@click.command()
@click.argument("preset", metavar="PRESET")
@click.argument("address", metavar="ADDRESS")
def push(preset: str, address: str) -> None:
    """Upload PRESET, a preset or run folder, to a hub.

    ADDRESS is hf://USER/MODEL or kaggle://USER/MODEL/keras/VARIATION. Log in first,
    with `hf auth login` or a Kaggle token. The model card (README.md) is uploaded as
    well: state the licence in it first. Others can then use ADDRESS as a MODEL.

    \b
    Examples:
      galip push runs/birds hf://maria/galip-birds
      galip push galip_cc12m kaggle://maria/galip/keras/cc12m
    """
    with quiet_imports():
        from galip_keras.presets.push import push as upload
    click.echo(upload(preset, address))
