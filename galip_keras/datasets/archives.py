"""Archives that are downloaded or handed in, or folders that they were unpacked to.

Members are read one by one; none is ever written under a name of the archive's choice.
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
from typing import IO

from tensorflow_datasets.core.download import download_manager, downloader
from tensorflow_datasets.core.download.util import DownloadError

# A name, with `/` between its parts, and what opens it.
Member = tuple[str, Callable[[], IO[bytes]]]

# What damaged bytes make the readers raise; RuntimeError is about encrypted members.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
)

# tensorflow-datasets' own ten keep a user without a network waiting for minutes.
_RETRIES = 3


def state(path: Path, files: Iterable[Path] = ()) -> str:
    """A name for what an archive or a folder holds, which changes when that does.

    Args:
        path: path. An archive counts by its name, size and time of change.
        files: paths. What counts, each in the same way, where `path` is a folder.

    Returns:
        A string, fit to be the name of a folder.
    """
    label = re.sub(r"[^A-Za-z0-9_-]", "_", path.name)[:40]
    # Wherever an archive lies, its content is the same. A folder's is not known.
    counted = [(path.name, path)] if path.is_file() else [(str(f), f) for f in files]
    digest = hashlib.sha256(b"" if path.is_file() else os.fsencode(path))
    for name, file in sorted(counted):
        stat = file.stat()
        digest.update(ascii((name, stat.st_size, stat.st_mtime_ns)).encode())
    return f"{label}-{digest.hexdigest()[:16]}"


def download(dl_manager, urls: Sequence[str], dataset: str) -> list[Path]:
    """Downloads files, unless that was done before.

    Args:
        dl_manager: a `tfds.download.DownloadManager` that knows their checksums.
        urls: list of strings.
        dataset: string. The data set that they belong to.

    Returns:
        A list of paths.

    Raises:
        OSError: where one cannot be fetched or arrives changed.
    """
    wanted = ", ".join(urls)
    hint = f"download by other means and give {dataset}:PATH as `dataset`"
    try:
        with few_retries(), _bars(_answers(urls[0])):
            # One by one: after a failure none is still being tried in the background.
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
        # The system's own, such as a full disk. Those of the network have no number.
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
    """Hides those of a download that can only fail, or find what it has already."""
    if shown:
        return contextlib.nullcontext()
    return contextlib.redirect_stderr(io.StringIO())


@contextlib.contextmanager
def few_retries() -> Iterator[None]:
    """Fewer than tensorflow-datasets', and without a warning of several lines each."""
    logger = logging.getLogger("urllib3")
    before = getattr(downloader, "MAX_RETRIES", None), logger.level
    downloader.MAX_RETRIES = _RETRIES
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before[0]
        logger.setLevel(before[1])


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a damaged archive raises into one `ValueError` that names it."""
    message = f"{path} is damaged or cut short: fetch it again"
    try:
        yield
    except DAMAGE as error:
        raise ValueError(message) from error
    except OSError as error:
        # gzip's and bz2's own, which unlike the system's have no number.
        if error.errno is not None:
            raise
        raise ValueError(message) from error


def members(path: Path) -> Iterator[Member]:
    """The files in a folder, a zip or a tar archive, compressed or not, in its order.

    Each is to be opened before the next one is asked for, and within `reading`.

    Raises:
        ValueError: where the file is no archive.
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
                # Not links, which lead anywhere.
                if member.isreg():
                    yield member.name, functools.partial(_extract, archive, member)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: open(path, "rb")


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():
            yield info.filename, functools.partial(archive.open, info)


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except tarfile.ReadError as error:
        raise ValueError(
            f"{path} is no zip or tar archive, or one cut short: fetch it again"
        ) from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None
    return file
