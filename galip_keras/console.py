"""Messages to the user, on standard error: results alone go to standard output."""

import sys
import textwrap

from tqdm.auto import tqdm

_is_silent = False


def silence():
    """Makes `say` say nothing: of several processes that train together, one speaks."""
    global _is_silent
    _is_silent = True


def say(message):
    """Writes a line, above the progress bar if there is one."""
    if not _is_silent:
        tqdm.write(message, file=sys.stderr)


def first_words(error):
    """Type and first words of another library's error, to be quoted in one of ours."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {textwrap.shorten(words, 100, placeholder='...')}"
