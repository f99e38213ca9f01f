"""Files and folders that are whole or not there at all."""

import contextlib
import hashlib
import os
import shutil
import tempfile


def write_text(path, text):
    """Writes a file beside its place, and moves it there once it is complete.

    Args:
        path: `pathlib.Path`.
        text: string.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


@contextlib.contextmanager
def write_folder(folder):
    """Yields a folder beside `folder` that takes its place once it is on disk.

    Args:
        folder: `pathlib.Path`. It may exist: it is replaced then.
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


def _sync(path):
    if os.name == "nt":
        # Windows syncs neither folders nor files that are open for reading.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path):
    """The SHA-256 of a file, as a string of hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def make_folder(folder, argument, what="folder"):
    """Makes a folder, before anything slow is done for what is to be written to it.

    Args:
        folder: `pathlib.Path`.
        argument: string. Who gave it, to be named where another one must be given.
        what: string. What the folder is.

    Raises:
        OSError: where nothing can be written to it.
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
