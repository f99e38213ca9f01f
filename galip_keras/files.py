"""Files and folders that are written completely or not at all."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What marks the folder of an exported model.
MANIFEST = "manifest.json"


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


def is_exported(folder: str | os.PathLike[str]) -> bool:
    """Whether `galip export` wrote this folder."""
    return Path(folder, MANIFEST).is_file()


def files_below(folder: str | os.PathLike[str]) -> list[str]:
    """List the files in a folder and its subfolders, links followed.

    Hidden files and folders are left out, such as the `._name.png` that macOS adds. So
    is anything but a regular file. A subfolder with several names is listed once: by
    its real name if that is inside `folder`, else by the first of its links.

    Args:
        folder: path.

    Returns:
        A sorted list of paths relative to `folder`, with `/` between their parts.

    Raises:
        OSError: If a subfolder cannot be read.
    """
    names: list[str] = []
    pending, visited = [os.fspath(folder)], set()
    while pending:
        links: list[str] = []
        for start in pending:
            for parent, subfolders, files in os.walk(start, onerror=_raise):
                # A link to a parent folder would otherwise be followed forever.
                real = os.path.realpath(parent)
                subfolders[:] = sorted(x for x in subfolders if not x.startswith("."))
                if real in visited:
                    subfolders.clear()
                    continue
                visited.add(real)
                paths = (os.path.join(parent, x) for x in subfolders)
                links.extend(filter(os.path.islink, paths))
                paths = (os.path.join(parent, x) for x in files if x[0] != ".")
                # Not a dangling link, nor a pipe, where reading would wait forever.
                names.extend(filter(os.path.isfile, paths))
        # Only now: real names come before links, wherever they are.
        pending = sorted(links)
    return sorted(Path(os.path.relpath(name, folder)).as_posix() for name in names)


def _raise(error: OSError) -> None:
    raise error
