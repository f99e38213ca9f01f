"""Archives that are downloaded or given, or the folders that they unpack to.

Members are read one by one. None is ever written under a name that the archive chose.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import lzma
import os
import re
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tensorflow_datasets.core.download import download_manager, downloader
from tensorflow_datasets.core.download.util import DownloadError

# A name, with `/` between its parts, and a function that opens it.
Member = tuple[str, Callable[[], IO[bytes]]]

# What readers raise on damaged bytes; RuntimeError is about encrypted members.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
)

# With the ten of tensorflow-datasets, a user without a network waits for minutes.
_RETRIES = 3


def existing(path: str, hint: str) -> Path:
    """A path that a user gave, made absolute.

    Args:
        path: string.
        hint: string. What to give instead, for the message.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    resolved = Path(path).expanduser().resolve()
    if not resolved.exists():
        raise FileNotFoundError(f"{resolved} does not exist: {hint}")
    return resolved


def state(path: Path, files: Iterable[Path] = ()) -> str:
    """A name for the content of an archive or folder, which changes with it.

    Args:
        path: path. An archive is identified by its name, size and modification time.
        files: paths. If `path` is a folder: the files that identify it, in the same
            way.

    Returns:
        A string that can be the name of a folder.
    """
    label = re.sub(r"[^A-Za-z0-9_-]", "_", path.name)[:40]
    # An archive has the same content wherever it lies. That of a folder is unknown.
    counted = [(path.name, path)] if path.is_file() else [(str(f), f) for f in files]
    digest = hashlib.sha256(b"" if path.is_file() else os.fsencode(path))
    for name, file in sorted(counted):
        stat = file.stat()
        digest.update(ascii((name, stat.st_size, stat.st_mtime_ns)).encode())
    return f"{label}-{digest.hexdigest()[:16]}"


def download(dl_manager: Any, urls: Sequence[str], dataset: str) -> list[Path]:
    """Download files, unless they are downloaded already.

    Args:
        dl_manager: a `tfds.download.DownloadManager` that knows their checksums.
        urls: list of strings.
        dataset: string. The dataset that they belong to.

    Returns:
        A list of paths.

    Raises:
        OSError: If a file cannot be fetched or has a wrong checksum.
    """
    wanted = ", ".join(urls)
    hint = f"download by other means and give {dataset}:PATH as `dataset`"
    try:
        with few_retries(), _bars(_answers(urls[0])):
            # One by one: after a failure nothing goes on in the background.
            return [Path(dl_manager.download(url)) for url in urls]
    except download_manager.NonMatchingChecksumError as error:
        changed = next((url for url in urls if url in str(error)), wanted)
        raise OSError(
            f"{changed} arrived with a wrong checksum: try again, or {hint}"
        ) from error
    except DownloadError as error:
        reason = " ".join(str(error).split())
        raise OSError(f"cannot fetch {wanted} ({reason}): {hint}") from error
    except OSError as error:
        # Errors of the system, such as a full disk, have a number. Those of the network
        # have none.
        if error.errno is not None:
            raise
        message = f"cannot fetch {wanted} (no connection): {hint}"
        raise ConnectionError(message) from error


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _bars(shown: bool) -> contextlib.AbstractContextManager:
    """Hide the progress bars of a download that can only fail or find its files."""
    if shown:
        return contextlib.nullcontext()
    return contextlib.redirect_stderr(io.StringIO())


@contextlib.contextmanager
def few_retries() -> Iterator[None]:
    """Make tensorflow-datasets retry downloads less often, and without warnings."""
    before = getattr(downloader, "MAX_RETRIES", None)
    downloader.MAX_RETRIES = _RETRIES
    try:
        with no_warnings("urllib3"):
            yield
    finally:
        downloader.MAX_RETRIES = before


@contextlib.contextmanager
def no_warnings(library: str) -> Iterator[None]:
    """Drop what a library logs below errors, such as each time that it tries again."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into one `ValueError` that names it."""
    message = f"{path} is damaged or truncated: fetch it again"
    try:
        yield
    except DAMAGE as error:
        raise ValueError(message) from error
    except OSError as error:
        # Errors of gzip and bz2 have no number, unlike those of the system.
        if error.errno is not None:
            raise
        raise ValueError(message) from error


def members(path: Path) -> Iterator[Member]:
    """Yield the files of a folder, zip or tar archive, compressed or not, in order.

    Open each file before you ask for the next one, and within `reading`.

    Raises:
        ValueError: If the file is not an archive.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), _opener(file)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from zip_members(archive)
    else:
        with _open_tar(path) as archive:
            for member in archive:
                # Links could lead anywhere.
                if member.isreg():
                    yield member.name, functools.partial(_extract, archive, member)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: open(path, "rb")


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():
            # Some tools on Windows write its own separator.
            name = info.filename.replace("\\", "/")
            yield name, functools.partial(archive.open, info)


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except tarfile.ReadError as error:
        raise ValueError(
            f"{path} is not a zip or tar archive, or is truncated: fetch it again"
        ) from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    return file
