"""Files and folders that are written completely or not at all."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing it only once the new text is complete.

    Args:
        path: `pathlib.Path`. File to write.
        text: string. Content of the file.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


@contextlib.contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """Replace a folder once the new one is complete and on disk.

    Args:
        folder: `pathlib.Path`. Folder to write, which may exist.

    Yields:
        A temporary folder beside it, for the new content.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    if os.name == "nt":
        # Windows cannot sync folders, nor files that are open for reading.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def make_folder(folder: Path, argument: str, what: str = "folder") -> None:
    """Make a folder and check that it can be written, before any slow work.

    Args:
        folder: `pathlib.Path`. Folder to make, which may exist.
        argument: string. Name of the argument that gave it, for the message.
        what: string. Description of the folder, for the message.

    Raises:
        OSError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"the {what} {folder} cannot be written ({error.strerror}): choose "
            f"another `{argument}`"
        ) from error
