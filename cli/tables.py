"""Lay out names with texts beside them, as wide as the terminal."""

import shutil
import textwrap


def definitions(rows, indent=""):
    """Lay out names and texts.

    Args:
        rows: list of `(name, text)`.
        indent: string. Comes before each line.

    Returns:
        A string of lines, wrapped to fit a terminal. Paths are not broken.
    """
    start = max(len(name) for name, _ in rows) + 2
    # In a file or a pipe, lines are not wrapped.
    columns = shutil.get_terminal_size((10**6, 24)).columns
    lines = []
    for name, text in rows:
        lines += textwrap.wrap(
            text,
            max(columns, start + 30),
            initial_indent=f"{indent}{name:{start}}",
            subsequent_indent=indent + " " * start,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [f"{indent}{name}"]
    return "\n".join(lines)
