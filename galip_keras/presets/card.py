"""Model cards: what a preset is, where it comes from, and what it is good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CARD = "README.md"
ORIGIN = "origin.json"

# The owner's part of a card begins here. It is kept when the card is renewed.
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

A [GALIP](https://arxiv.org/abs/2301.12959) for images of {size}x{size} pixels, with
{generator:,} parameters on a frozen CLIP of {clip:,}: {clip_source}, {layers} blocks of
width {width} on {grid}x{grid} patches.

## Data

{data}

## Figures

{figures}

## Intended use

Research, teaching and play. The model draws what its training images show and little
else, repeats the biases of those images and of CLIP, and cannot spell or count. Do not
use it for images meant to pass for photographs of real people or events, or for any
decision about people.

"""

_OWN = f"""\
{OWN}

## Licence

{{license}} The training data and the CLIP have licences of their own.
"""

_UNSTATED = "Not stated yet: whoever publishes these weights states it here."


def write(
    folder: str | Path,
    facts: dict[str, Any],
    origin: dict[str, Any],
    earlier: str | Path | None = None,
) -> None:
    """Write the card of a preset, and its origin as JSON.

    Args:
        folder: path. The preset folder.
        facts: dict. What `galip_keras.presets.sizes.describe` says about the model.
        origin: dict of `"title"`, `"made"`, `"data"` and `"clip"`, in words, and
            `"figures"`, a dict of numbers by name. If they are known, `"license"` in
            words, and `"handle"`, what stands for the model in commands. Further keys
            are kept in the JSON.
        earlier: path. A folder with the card that this one replaces.
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
    own = read(earlier).partition(OWN)[2] if earlier else ""
    if own:
        card += OWN + own
    else:
        card += _OWN.format(license=origin.get("license", _UNSTATED))
    (folder / CARD).write_text(card, "utf-8")
    (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", "utf-8")


def move(folder: str | Path, address: str) -> None:
    """Put a new address into the commands that the card of a preset shows.

    Args:
        folder: path. The preset folder.
        address: string. Where the preset will be found.
    """
    text, origin = read(folder), read_origin(folder)
    if text and origin:
        for use in ('galip sample "a bird" --model {}', 'from_preset("{}")'):
            text = text.replace(use.format(_handle(origin)), use.format(address))
        (Path(folder) / CARD).write_text(text, "utf-8")


def _handle(origin: dict[str, Any]) -> str:
    return origin.get("handle") or f"./{origin['title']}"


def read(folder: str | Path) -> str:
    """The text of a preset's card, empty if it has none."""
    path = Path(folder) / CARD
    return path.read_text("utf-8") if path.is_file() else ""


def read_origin(folder: str | Path) -> dict[str, Any]:
    """The origin of a preset, as given to `write`; empty if it is unknown."""
    path = Path(folder) / ORIGIN
    try:
        origin = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _figures(figures: dict[str, float]) -> str:
    if not figures:
        return "Not measured yet: run `galip evaluate`."
    rows = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    return "\n".join(["| | |", "|---|---|", *rows])
