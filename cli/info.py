"""`galip info`."""

import json

import click

import galip_keras
from galip_cli.quiet import quiet_imports


@click.command()
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(model, as_json):
    """Tell versions, devices and presets, or the sizes of MODEL.

    MODEL is a preset, run folder, preset folder, hub handle or architecture.

    \b
    Examples:
      galip info
      galip info runs/birds --json
    """
    with quiet_imports():
        import keras
        import keras_hub

        from galip_keras.loading import describe, load_model
        from galip_keras.text_to_image import ARCHITECTURES, BUNDLED
    if model:
        facts = describe(load_model(model))
    else:
        facts = {
            "galip_keras": galip_keras.__version__,
            "keras": keras.__version__,
            "keras_hub": keras_hub.__version__,
            "backend": keras.backend.backend(),
            "devices": _devices(keras),
            "presets": BUNDLED,
            "architectures": {
                name: spec["description"] for name, spec in ARCHITECTURES.items()
            },
        }
    click.echo(json.dumps(facts, indent=2) if as_json else _table(facts))


def _devices(keras):
    try:
        return keras.distribution.list_devices()
    except AttributeError:
        # Keras has no list for PyTorch, but a tensor knows where it is.
        return [str(keras.ops.zeros(()).device)]


def _table(facts, indent=""):
    lines = []
    width = max(map(len, facts))
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", _table(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:{width}}  {_text(value)}")
    return "\n".join(lines)


def _text(value):
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
