"""Write miniature archives and folders from their members.

Members are a dict, or pairs of names and contents (strings or bytes).
"""

import io
import tarfile
import zipfile


def write_zip(file, members):
    """Write a zip, its top folder first, as real ones have it."""
    members = _encoded(members)
    with zipfile.ZipFile(file, "w") as archive:
        for folder in dict.fromkeys(n.split("/")[0] for n, _ in members if "/" in n):
            archive.writestr(f"{folder}/", b"")
        for name, content in members:
            archive.writestr(name, content)
    return file


def zip_bytes(members):
    return write_zip(io.BytesIO(), members).getvalue()


def write_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in _encoded(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path, members):
    for name, content in _encoded(members):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def _encoded(members):
    pairs = members.items() if isinstance(members, dict) else members
    return [(n, c.encode() if isinstance(c, str) else c) for n, c in pairs]
