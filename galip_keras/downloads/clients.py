"""The libraries that fetch: gdown for Google Drive and the web, huggingface_hub."""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from galip_keras.console import first_words, progress_bar
from galip_keras.downloads.sources import SOURCES

# Of a connection that breaks. Each goes on where the one before has stopped.
_RETRIES = 3
# Seconds to connect, and between two pieces of a file.
_TIMEOUT = (10, 60)


def download(name: str, path: Path) -> tuple[str, str]:
    """Download a file. What an interrupted call left of it is used.

    With the environment variable `GALIP_MIRROR`, all files come from below that
    address, by their names.

    Args:
        name: string. A key of `galip_keras.downloads.sources.SOURCES`.
        path: path. Where to write it. Parts of it may stay beside it after an error.

    Returns:
        A tuple of the address that it came from, and the SHA-256 that the server says
        it has, which is empty where none says so.

    Raises:
        OSError: if it cannot be fetched or stored.
        ValueError: if it needs a library that is not installed.
    """
    source, digest = SOURCES[name], ""
    mirror = os.environ.get("GALIP_MIRROR", "").rstrip("/")
    if mirror:
        address = f"{mirror}/{name}"
    elif source.hub_file:
        address, digest = _ask_hub(*source.hub_file)
    else:
        address = source.page
    if source.drive_id and not mirror:
        _from_web(path, name, id=source.drive_id)
    else:
        _from_web(path, name, url=address)
    return address, digest


def _from_web(path: Path, name: str, **where: str) -> None:
    library = _gdown(name)
    import requests

    failures = library.exceptions.DownloadError, requests.RequestException
    parts = sorted(_parts(path), key=lambda part: part.stat().st_size)
    # gdown goes on with the only one.
    for part in parts[:-1]:
        part.unlink()
    before = parts[-1].stat().st_size if parts else 0
    try:
        try:
            _run_gdown(library, path, before, where)
        except failures as error:
            # What arrived before is still good if the network has failed.
            is_network = isinstance(error.__cause__ or error, requests.RequestException)
            if not before or is_network or _size(path) != before:
                raise
            # The rest cannot be had alone: all is here, or the server has no ranges.
            for part in _parts(path):
                part.unlink()
            _run_gdown(library, path, 0, where)
    except failures as error:
        raise OSError(_words(error)) from error


def _run_gdown(
    library: ModuleType, path: Path, before: int, where: dict[str, str]
) -> None:
    refused = library.exceptions.FileURLRetrievalError
    with _bar(path.name, before) as progress:
        try:
            library.download(
                **where,
                output=str(path),
                quiet=True,
                resume=True,
                use_cookies=False,
                retries=_RETRIES,
                timeout=_TIMEOUT,
                progress=progress,
            )
        except refused as error:
            # Its last paragraphs are about gdown.
            words = str(error).split("You may still")[0].partition(":")[2]
            raise OSError(f"Google Drive says: {' '.join(words.split())}") from error


def _parts(path: Path) -> Iterator[Path]:
    """What gdown leaves of a download."""
    return path.parent.glob(f"{glob.escape(path.name)}????????.part")


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in _parts(path))


def _words(error: Exception) -> str:
    import requests

    for found in (error, error.__cause__):
        if isinstance(found, (requests.ConnectionError, requests.Timeout)):
            host = urllib.parse.urlsplit(getattr(found.request, "url", "")).hostname
            return f"no connection to {host}"
    # The second line of gdown's is about gdown.
    return str(error).partition("\n")[0]


@contextlib.contextmanager
def _bar(name: str, before: int) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar, shown once something arrives, and the function that moves it."""
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def progress(arrived: int, total: int | None) -> None:
            if not bars:
                bar = progress_bar(
                    desc=name, total=total, initial=before, unit="B", unit_scale=True
                )
                bars.append(stack.enter_context(bar))
            bars[0].update(arrived - bars[0].n)

        yield progress


def _gdown(name: str) -> ModuleType:
    try:
        return importlib.import_module("gdown")
    except ImportError as error:
        raise ValueError(
            f"fetching {name} needs gdown: pip install 'galip-keras[weights]'"
        ) from error


def _ask_hub(repository: str, file: str) -> tuple[str, str]:
    """The address of a file on the Hugging Face hub, and its digest if it is large.

    The file itself comes by gdown: huggingface_hub begins again after an interruption.
    """
    library = importlib.import_module("huggingface_hub")
    # It reads this variable once a process. None stands for its own address.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    url = library.hf_hub_url(repository, file, endpoint=endpoint)
    try:
        digest = library.get_hf_file_metadata(url).etag or ""
    except Exception as error:
        words = first_words(error)
        if words.startswith(("Connect", "Timeout")):
            words = f"no connection to {urllib.parse.urlsplit(url).hostname}"
        raise OSError(words) from error
    # Of a small file it is the digest of git, which is not of its content alone.
    return url, digest if len(digest) == 64 else ""
