"""`galip info`: describes the installation or a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import galip_keras
from galip_cli.quiet import quiet_imports
from galip_cli.tables import definitions
from galip_keras.convert import released
from galip_keras.downloads.sources import MODELS, SOURCES, size


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(model: str | None, as_json: bool) -> None:
    """Show versions, devices and presets, or describe MODEL.

    The description has the model's sizes, its CLIP, its origin and its card. MODEL is a
    preset, run folder, preset folder, hub handle, architecture or one of the authors'
    models, of which those that are not here yet are not fetched.

    \b
    Examples:
      galip info
      galip info runs/birds --json
    """
    with quiet_imports():
        import keras
        import keras_hub

        from galip_keras.models.architectures import ARCHITECTURES, BUNDLED
    facts: dict[str, Any]
    text = ""
    if model:
        facts, text = _model(model)
    else:
        facts = {
            "galip_keras": galip_keras.__version__,
            "keras": keras.__version__,
            "keras_hub": keras_hub.__version__,
            "backend": keras.backend.backend(),
            "devices": _devices(keras),
            "presets": BUNDLED,
            "released": {name: _released(name) for name in MODELS},
            "architectures": {
                name: spec["description"] for name, spec in ARCHITECTURES.items()
            },
        }
    if as_json:
        click.echo(json.dumps({**facts, **({"card": text} if model else {})}, indent=2))
    else:
        if not model:
            facts["released"] = {k: _line(x) for k, x in facts["released"].items()}
        click.echo(_table(facts) + (f"\n\n{text.strip()}" if text else ""))


def _released(name: str) -> dict[str, Any]:
    """Facts about a released model, which need not be here."""
    model, source = MODELS[name], SOURCES[MODELS[name].checkpoint]
    return {
        "description": model.description,
        "megabytes": model.megabytes,
        "license": model.license,
        "address": source.page,
        "folder": str(released.preset_path(name)),
        "here": released.is_here(name),
    }


def _line(facts: dict[str, Any]) -> str:
    place = f"here, in {facts['folder']}" if facts["here"] else "fetched on first use"
    about = size(facts["megabytes"])
    return f"{facts['description']}; {about}; {facts['license']}; {place}"


def _model(model: str) -> tuple[dict[str, Any], str]:
    """Facts about a model, and its card."""
    from galip_keras.models.architectures import ARCHITECTURES
    from galip_keras.presets import card
    from galip_keras.presets.loading import find_preset, load_model
    from galip_keras.presets.sizes import describe

    if model in MODELS and not (Path(model).exists() or released.is_here(model)):
        return {"model": model, **_released(model)}, ""
    network = load_model(model)
    if model in ARCHITECTURES:
        spec = ARCHITECTURES[model]
        what = f"An untrained architecture. {spec['description']}"
        return {"model": model, "what": what, **describe(network)}, ""
    folder = Path(find_preset(model))
    origin = card.read_origin(folder)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    facts: dict[str, Any] = {
        "model": model,
        "folder": str(folder),
        "megabytes": round(size / 1e6, 1),
        **{name: origin[name] for name in ("made", "data", "clip") if name in origin},
    }
    return {**facts, **describe(network)}, card.read(folder)


def _devices(keras: Any) -> list[str]:
    try:
        return keras.distribution.list_devices()
    except AttributeError:
        # Keras has no list for PyTorch, but a tensor knows its device.
        return [str(keras.ops.zeros(()).device)]


def _table(facts: dict[str, Any], indent: str = "") -> str:
    rows = [(k, _text(v)) for k, v in facts.items() if not isinstance(v, dict)]
    lines = [definitions(rows, indent)]
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _table(value, indent + "  ")]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
