"""Licences that a user accepts before anything is fetched."""

from __future__ import annotations

import os
import sys

VARIABLE = "GALIP_ACCEPT_LICENSES"

_accepted: set[str] = set()


class LicenseError(ValueError):
    """A licence was not accepted, and nothing was fetched."""


def accept(what: str, license: str) -> None:
    """Say what is about to be fetched and under which licence, and ask for consent.

    The environment variable `GALIP_ACCEPT_LICENSES` gives it in advance, if it is `1`.
    Without it there is a question, if a user is at the terminal. A licence is accepted
    once a process.

    Args:
        what: string. What it is, and how large.
        license: string. The licence, and the page that says so.

    Raises:
        LicenseError: if the user refuses, or cannot be asked.
    """
    from galip_keras.console import say

    if license in _accepted:
        return
    line = f"{what}: {license}"
    if os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes"):
        say(line)
    elif not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
        raise LicenseError(f"{line}. To accept this licence, set {VARIABLE}=1")
    else:
        say(line)
        print("Accept this licence? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise LicenseError("the licence was not accepted, and nothing was fetched")
    _accepted.add(license)


def _is_terminal(stream: object) -> bool:
    return stream is not None and bool(getattr(stream, "isatty", bool)())
