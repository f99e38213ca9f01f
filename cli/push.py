"""`galip push`."""

import click

from galip_cli.quiet import quiet_imports


@click.command()
@click.argument("preset", metavar="PRESET")
@click.argument("address", metavar="ADDRESS")
def push(preset, address):
    """Upload PRESET, a preset or run folder, to a hub.

    ADDRESS is hf://USER/MODEL or kaggle://USER/MODEL/keras/VARIATION. Log in first, by
    `hf auth login` or with Kaggle's token. The card (README.md) goes with it: state the
    licence there before. Others then give ADDRESS where a MODEL is asked for.

    \b
    Examples:
      galip push runs/birds hf://maria/galip-birds
      galip push galip_cc12m kaggle://maria/galip/keras/cc12m
    """
    with quiet_imports():
        from galip_keras.presets import push as sharing
    click.echo(sharing.push(preset, address))
