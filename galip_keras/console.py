"""Messages to the user, on standard error. Only results go to standard output."""

import sys
import textwrap

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


def first_words(error: BaseException) -> str:
    """Shorten another library's error, so that a message can quote it."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {textwrap.shorten(words, 100, placeholder='...')}"
