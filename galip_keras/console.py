"""Messages to the user, on standard error. Only results go to standard output."""

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

_is_silent = False


def silence() -> None:
    """Silence `say`: of several processes that train together, only one speaks."""
    global _is_silent
    _is_silent = True


def say(message: str) -> None:
    """Write a line on standard error, above the progress bar if there is one."""
    if not _is_silent:
        tqdm.write(message, file=sys.stderr)


def is_live() -> bool:
    """Whether a person watches standard error: a terminal or a notebook, not a file."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def bar_interval() -> float:
    """Seconds between two states of a progress bar. A log file gets a line a minute."""
    return 0.5 if is_live() else 60.0


def progress_bar(is_shown: bool = True, **details: Any) -> tqdm:
    """Make a progress bar on standard error.

    Args:
        is_shown: bool. `False` for a bar that does nothing. The environment
            variable `TQDM_DISABLE` of tqdm turns off the others.
        **details: arguments of `tqdm.auto.tqdm`.
    """
    if not is_shown:
        # Unless it is given, the environment decides.
        details["disable"] = True
    return tqdm(
        mininterval=bar_interval(),
        file=sys.stderr,
        dynamic_ncols=sys.stderr.isatty(),
        **details,
    )


def first_words(error: BaseException) -> str:
    """Shorten another library's error, so that a message can quote it."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {textwrap.shorten(words, 100, placeholder='...')}"


@contextlib.contextmanager
def needs_tensorflow(what: str) -> Iterator[None]:
    """Say what to install where the body's imports lack TensorFlow or its libraries.

    Args:
        what: string. What cannot do without them, for the message.

    Raises:
        ModuleNotFoundError: if one of them is not installed.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if not name.startswith("tensorflow"):
            raise
        raise ModuleNotFoundError(needs_package(what, name), name=name) from error


def needs_package(what: str, module: str) -> str:
    """Say how to install what lacks a module whose package has the same name."""
    package = module.replace("_", "-")
    return f"{what} needs {package}: pip install {package}"
