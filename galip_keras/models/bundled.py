"""The presets that ship with the package. Importing this module imports no Keras."""

from pathlib import Path

# By the names of their folders.
BUNDLED = {
    "toybirds": "A small model that draws the birds of the dataset toybirds, ready to "
    "use.",
}


def bundled_folder(name: str) -> Path:
    """The folder of a preset, a name in `BUNDLED`."""
    return Path(__file__).parents[1] / "presets" / name
