"""Model cards: what a preset is, where it comes from, how good it is, what for."""

import json
from pathlib import Path

CARD = "README.md"
ORIGIN = "origin.json"

# What stands below it in a card is its owner's, and kept when the card is renewed.
OWN = "<!-- What you write below this line is kept when the card is renewed. -->"

_CARD = """\
---
library_name: keras-hub
pipeline_tag: text-to-image
tags:
- galip
- keras
- text-to-image
---
# {title}

{made}

```sh
galip sample "a bird" --model {handle}
```

```python
import galip_keras

model = galip_keras.GALIPTextToImage.from_preset("{handle}")
images = model.generate(["a bird"], seed=0)  # uint8 (1, {size}, {size}, 3)
```

## Model

A [GALIP](https://arxiv.org/abs/2301.12959) for pictures of {size}x{size} pixels, with
{generator:,} trained parameters on a frozen CLIP of {clip:,}: {clip_source}, {layers}
blocks of width {width} on {grid}x{grid} patches.

## Data

{data}

## Figures

{figures}

## Intended use

Research, teaching and play. It draws what its training pictures show and little else,
repeats the prejudices of those pictures and of CLIP, and cannot spell or count. Not for
pictures that are to pass for photographs of real persons or events, nor for anything
that decides about people.

"""

_OWN = f"""\
{OWN}

## Licence

Not stated yet: whoever publishes these weights says here. The data and the CLIP that
they come from have licences of their own.
"""


def write(folder, facts, origin, earlier=None):
    """Writes the card of a preset, and as JSON where the preset comes from.

    Args:
        folder: path. The preset folder.
        facts: dict. What `galip_keras.presets.loading.describe` tells of the model.
        origin: dict of `"title"`, `"made"`, `"data"` and `"clip"`, in words, and
            `"figures"`, a dict of numbers by name. More is kept in the JSON.
        earlier: path. A folder with the card that this one takes the place of.
    """
    folder = Path(folder)
    card = _CARD.format(
        **{name: origin[name] for name in ("title", "made", "data")},
        handle=_handle(origin),
        size=facts["image_size"],
        generator=facts["generator_parameters"],
        clip=facts["clip_parameters_frozen"],
        clip_source=origin["clip"],
        layers=facts["clip_num_layers"],
        width=facts["clip_hidden_dim"],
        grid=facts["clip_grid_size"],
        figures=_figures(origin["figures"]),
    )
    own = earlier and read(earlier).partition(OWN)[2]
    (folder / CARD).write_text(card + (OWN + own if own else _OWN), "utf-8")
    (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", "utf-8")


def move(folder, address):
    """Names in the card of a preset the address where it is found from now on."""
    text, origin = read(folder), read_origin(folder)
    if text and origin:
        text = text.replace(_handle(origin), address)
        (Path(folder) / CARD).write_text(text, "utf-8")


def _handle(origin):
    return f"./{origin['title']}"


def read(folder):
    """The text of a preset's card, empty where there is none."""
    path = Path(folder) / CARD
    return path.read_text("utf-8") if path.is_file() else ""


def read_origin(folder):
    """Where a preset comes from, as `write` was told; empty where nothing is known."""
    path = Path(folder) / ORIGIN
    try:
        origin = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _figures(figures):
    if not figures:
        return "None were measured: `galip evaluate` does."
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    return "\n".join(["| | |", "|---|---|", *rows])
