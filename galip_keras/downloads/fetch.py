"""Fetch files by name into the cache: once, whole, and the same ever after."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galip_keras.console import say
from galip_keras.downloads import clients
from galip_keras.downloads.licenses import accept
from galip_keras.downloads.sources import SOURCES, size
from galip_keras.files import sha256, write_text

# Digests that a user has pinned, in the format of `sha256sum`.
PINS = "SHA256SUMS"

# An asterisk marks a file that was read as binary.
_PIN = re.compile(r"([0-9A-Fa-f]{64})\s+\*?(\S.*)")


def home() -> Path:
    """The folder of everything that is fetched.

    It is the environment variable `GALIP_HOME`, else `galip_keras` in `XDG_CACHE_HOME`
    or in `~/.cache`.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    given = os.environ.get("GALIP_HOME") or os.path.join(cache, "galip_keras")
    return Path(given).expanduser().absolute()


def path_of(name: str) -> Path:
    """Where the file of a key of `SOURCES` is, or will be."""
    return home() / "downloads" / name


def fetch(name: str) -> Path:
    """Return the path of a file, and fetch it first unless it is here.

    What has arrived of an interrupted download is kept, and the next call goes on with
    it. Of several processes, one fetches and the others wait.

    Args:
        name: string. A key of `galip_keras.downloads.sources.SOURCES`.

    Returns:
        A `pathlib.Path`. Beside it is a record, `NAME.json`: size, SHA-256, address and
        date. A file that no longer agrees with it is refused, and so is one that does
        not have the digest in `SHA256SUMS` of `home()`, if its name is there.

    Raises:
        LicenseError: if its licence must be accepted and was not.
        OSError: if it cannot be fetched or stored.
        ValueError: if it is not the right file.
    """
    source, path = SOURCES[name], path_of(name)
    if path.is_file():
        _check(name, path)
        return path
    what = f"{name}, {size(source.megabytes)}"
    if source.must_accept:
        accept(what, source.license)
    arriving = home() / "downloads" / ".arriving" / name
    try:
        arriving.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(arriving.with_name(f"{arriving.name}.lock"), name):
            if not path.is_file():
                say(f"Fetching {what}.")
                _arrive(name, arriving, path)
    except OSError as error:
        raise _explained(name, error) from error
    return path


@contextlib.contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Wait until no other process works on the same thing.

    Args:
        lock: path. A file that stands for it.
        what: string. What it is, for a message.
    """
    import filelock

    held = filelock.FileLock(str(lock))
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        say(f"Another process is at work on {what}: waiting for it.")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _arrive(name: str, arriving: Path, path: Path) -> None:
    """Fetch a file, check it, and give it its name."""
    address, digest = clients.download(name, arriving)
    try:
        record = _examine(name, arriving, digest)
    except ValueError:
        arriving.unlink()
        raise
    record["address"] = address
    record["fetched"] = datetime.datetime.now().astimezone().isoformat("T", "seconds")
    write_text(_record(path), json.dumps(record, indent=2) + "\n")
    # gdown's temporary files are for their owner alone.
    shutil.copymode(_record(path), arriving)
    os.replace(arriving, path)


def _examine(name: str, path: Path, promised: str = "") -> dict[str, Any]:
    """Size and SHA-256 of a file that may be what it should be.

    Raises:
        ValueError: if it is a web page, empty, or not of the digest that is expected.
    """
    with open(path, "rb") as file:
        start = file.read(1024)
    # None of the files begins like this: they are archives or JSON.
    if start.lstrip()[:1] in (b"", b"<"):
        kind = "a web page" if start else "an empty file"
        raise ValueError(f"{name} is {kind} instead of the file: {by_hand(name)}")
    digest = sha256(path)
    for expected, where in (
        (SOURCES[name].sha256, "its name says"),
        (promised, "the server says"),
        (_pinned(name), f"{home() / PINS} says"),
    ):
        if not digest.startswith(expected):
            raise ValueError(
                f"{name} is not the right file: its SHA-256 is {digest}, and {where} "
                f"{expected}"
            )
    return {"bytes": path.stat().st_size, "sha256": digest}


def _check(name: str, path: Path) -> None:
    """Compare a file with its record. One that was put there by hand gets a record."""
    found = _examine(name, path)
    try:
        record = json.loads(_record(path).read_text("utf-8"))
        differs = record["sha256"] != found["sha256"]
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            record = {**found, "address": "put here by hand"}
            write_text(_record(path), json.dumps(record, indent=2) + "\n")
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{_record(path)} is damaged: delete it") from error
    if differs:
        raise ValueError(
            f"{path} has changed since it was fetched: delete it to fetch it again, or "
            f"delete {_record(path).name} to accept it as it is"
        )


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _pinned(name: str) -> str:
    """The digest that the user has pinned, or an empty string."""
    path, digest = home() / PINS, ""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        # A line that is not understood could be a pin that is not kept.
        if not (found := _PIN.fullmatch(line.strip())):
            raise ValueError(
                f"{path}, line {number} is not what `sha256sum FILE` writes: a digest "
                "of 64 digits and the name of a file"
            )
        # `sha256sum` writes the path that it was given.
        if f"/{found[2]}".replace("\\", "/").endswith(f"/{name}"):
            digest = found[1].lower()
    return digest


def by_hand(name: str) -> str:
    """How a user can provide a file without this package's help."""
    return f"get {SOURCES[name].page} with a browser and save it as {path_of(name)}"


def _explained(name: str, error: OSError) -> OSError:
    """An error in one line that says what to do."""
    folder = home() / "downloads"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(folder).free / 1e6 if folder.is_dir() else 0
        return OSError(
            f"the disk is full: {name} needs {size(SOURCES[name].megabytes)} in "
            f"{folder}, where {free:.0f} MB are free. What has arrived is kept: make "
            "room and run the same again, or set GALIP_HOME to a folder elsewhere"
        )
    if error.errno is not None:
        return OSError(
            f"{name} cannot be stored in {folder} ({error.strerror}): set GALIP_HOME "
            "to a folder that can be written"
        )
    words = textwrap.shorten(str(error), 300, placeholder="...")
    return OSError(
        f"{name} could not be fetched ({words}): try again, or {by_hand(name)}"
    )
