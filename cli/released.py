"""Models that are fetched by name, before any slow work."""

from galip_cli.quiet import quiet_imports
from galip_keras.downloads.sources import MODELS


def fetch_first(model):
    """Fetch a released model now, where its licence and its progress can be seen.

    Commands that load a model while they hold back what libraries write call this
    before.

    Args:
        model: string. What the user gave as a model. Others need nothing.
    """
    if model in MODELS:
        with quiet_imports():
            from galip_keras.models.architectures import preset_folder
        preset_folder(model)
