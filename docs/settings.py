"""Writes the table of all settings into training.md: python docs/settings.py

With --check it writes nothing and fails where the table is out of date.
"""

import dataclasses
import sys
from pathlib import Path

from galip_cli.train import option_name
from galip_keras.training.config import TrainingConfig

PAGE = Path(__file__).with_name("training.md")
START, END = "<!-- settings: python docs/settings.py -->", "<!-- /settings -->"


def table() -> str:
    rows = ["| option | field | default | what it does |", "|---|---|---|---|"]
    for field in dataclasses.fields(TrainingConfig):
        setting = field.metadata["setting"]
        default = field.default
        if default is dataclasses.MISSING:
            default = "required"
        elif setting.unset:
            default = setting.unset
        elif default is None or default == ():
            default = "none"
        else:
            default = f"`{default}`"
        text = setting.help + (" Fixed." if setting.is_fixed else "")
        option = f"`{option_name(field)}`".replace("/--no-", "`, `--no-")
        rows.append(f"| {option} | `{field.name}` | {default} | {text} |")
    return "\n".join(rows)


def page() -> str:
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), "utf-8")
    elif page() != PAGE.read_text("utf-8"):
        sys.exit("docs/training.md is out of date: run python docs/settings.py")
