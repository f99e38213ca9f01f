"""Files that are fetched by name, from a web on loopback."""

import errno
import hashlib
import json
import os
import sys

import numpy as np
import pytest
import web as webs

from galip_keras.downloads import clients
from galip_keras.downloads.fetch import fetch, path_of
from galip_keras.downloads.sources import MODELS, SOURCES

# Fetching has nothing to do with the backend: once is enough.
pytestmark = [
    pytest.mark.backend("tensorflow"),
    pytest.mark.extra("weights", "gdown"),
    pytest.mark.usefixtures("home"),
]

COCO = "pre_coco.pth"
COCO_ID = SOURCES[COCO].drive_id
MERGES = "clip-vit-base-patch32/merges.txt"
# gdown writes pieces of this size.
PIECE = 512 * 1024
CONTENT = np.random.default_rng(0).bytes(10 * PIECE + 7)


def left(home):
    """What a download has left beside the locks."""
    found = (path for path in home.rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.suffix != ".lock")


def parts(home):
    return list(home.rglob("*.part"))


@pytest.mark.parametrize("is_small", [True, False])
def test_a_file_of_google_drive(web, home, capsys, is_small):
    web.files[COCO_ID] = CONTENT
    web.small = {COCO_ID} if is_small else set()
    path = fetch(COCO)
    assert path == home / "downloads" / COCO
    assert path.read_bytes() == CONTENT
    record = json.loads((home / "downloads" / f"{COCO}.json").read_text())
    assert record["bytes"] == len(CONTENT)
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert COCO_ID in record["address"]
    assert record["fetched"].startswith("20")
    assert path.stat().st_mode == path.with_name(f"{COCO}.json").stat().st_mode
    assert left(home) == [COCO, f"{COCO}.json"]
    lines = capsys.readouterr().err.splitlines()
    assert "CC BY-NC-SA 4.0, no commercial use (https://github.com/tobran" in lines[0]
    count = len(web.asked)
    assert fetch(COCO) == path
    assert len(web.asked) == count
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (f'<p class="uc-error-subcaption">{webs.QUOTA}</p>', "Too many users"),
        ("<html><title>Google Drive - Quota exceeded</title></html>", "public link"),
        ("<html><body>Sign in to continue</body></html>", "public link"),
    ],
)
def test_a_page_of_google_drive_is_no_file(web, home, page, words):
    web.pages[COCO_ID] = page
    with pytest.raises(OSError, match=f"^{COCO} could not be fetched") as caught:
        fetch(COCO)
    line = str(caught.value)
    assert "\n" not in line
    assert f"Google Drive says: {words}" in line or words in line
    assert f"get https://drive.google.com/file/d/{COCO_ID}/view with a browser" in line
    assert line.endswith(f"save it as {path_of(COCO)}")
    assert left(home) == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html>the firewall says no</html>", "a web page"),
        (b"\n <?xml version='1.0'?>", "a web page"),
        (b"", "an empty file"),
    ],
)
def test_a_page_under_the_name_of_a_file(web, home, monkeypatch, content, kind):
    monkeypatch.setenv("GALIP_MIRROR", f"{web.address}/mirror/")
    web.files[f"mirror/{COCO}"] = content
    with pytest.raises(ValueError, match=f"{COCO} is {kind} instead of the file"):
        fetch(COCO)
    assert left(home) == []


def test_a_cut_connection_goes_on(web, home):
    web.files[COCO_ID] = CONTENT
    web.cuts = [0, 3 * PIECE, 2 * PIECE + 9]
    assert fetch(COCO).read_bytes() == CONTENT
    ranges = [headers.get("Range") for *_, headers in web.asked]
    assert [x for x in ranges if x] == [
        f"bytes={3 * PIECE}-",
        f"bytes={5 * PIECE}-",
    ]


def test_an_interrupted_download_goes_on(web, home, monkeypatch):
    web.files[COCO_ID] = CONTENT
    monkeypatch.setattr(clients, "_RETRIES", 0)
    for tenth in range(1, 10):
        # Of two transfers the first is only looked at when the second goes on.
        web.cuts = [PIECE] if tenth == 1 else [0, PIECE]
        with pytest.raises(OSError, match=COCO):
            fetch(COCO)
        assert left(home) == [path.name for path in parts(home)]
        assert [path.stat().st_size for path in parts(home)] == [tenth * PIECE]
    assert fetch(COCO).read_bytes() == CONTENT
    assert left(home) == [COCO, f"{COCO}.json"]


@pytest.mark.parametrize("arrived", [5 * PIECE, len(CONTENT)])
def test_where_a_download_cannot_go_on_it_begins_again(web, home, monkeypatch, arrived):
    web.files[COCO_ID] = CONTENT
    web.has_ranges = arrived == len(CONTENT)
    folder = home / "downloads" / ".arriving"
    folder.mkdir(parents=True)
    (folder / f"{COCO}abcdefgh.part").write_bytes(CONTENT[:arrived])
    (folder / f"{COCO}older_on.part").write_bytes(b"x")
    if not web.has_ranges:
        # The first answer is left, the second is not the part that was asked for.
        web.cuts = [0, 0, PIECE, 0, PIECE, 0, PIECE, 0, PIECE]
        with pytest.raises(OSError, match=f"{COCO} could not be fetched"):
            fetch(COCO)
        web.cuts = []
    assert fetch(COCO).read_bytes() == CONTENT
    assert left(home) == [COCO, f"{COCO}.json"]


def test_without_a_network_what_has_arrived_is_kept(web, home, monkeypatch):
    web.server_port = 9
    folder = home / "downloads" / ".arriving"
    folder.mkdir(parents=True)
    (folder / f"{COCO}abcdefgh.part").write_bytes(CONTENT[:1000])
    with pytest.raises(OSError, match=r"to drive.google.com\): try again"):
        fetch(COCO)
    assert [path.stat().st_size for path in parts(home)] == [1000]


def test_a_file_of_hugging_face(web, home):
    web.files["openai/clip-vit-base-patch32/merges.txt"] = b"#version: 0.2\nt h\n"
    assert fetch(MERGES).read_bytes() == b"#version: 0.2\nt h\n"
    assert left(home) == ["merges.txt", "merges.txt.json"]
    with pytest.raises(OSError, match=r"vocab.json could not be .*404.*save it"):
        fetch("clip-vit-base-patch32/vocab.json")


def test_the_digest_that_hugging_face_gives(web, home, monkeypatch):
    web.files["openai/clip-vit-base-patch32/merges.txt"] = CONTENT
    web.cuts = [3 * PIECE, 0]
    monkeypatch.setattr(clients, "_RETRIES", 0)
    with pytest.raises(OSError, match="incomplete"):
        fetch(MERGES)
    # The rest is of another file. Both have the same length and the same date.
    web.cuts, web.files["openai/clip-vit-base-patch32/merges.txt"] = [], CONTENT[::-1]
    with pytest.raises(ValueError, match=r"not the right file.* the server says"):
        fetch(MERGES)
    assert left(home) == []
    assert fetch(MERGES).read_bytes() == CONTENT[::-1]


def test_a_mirror_has_every_file_by_its_name(web, monkeypatch):
    monkeypatch.setenv("GALIP_MIRROR", f"{web.address}/galip")
    for name in (COCO, MERGES):
        web.files[f"galip/{name}"] = CONTENT
        assert fetch(name).read_bytes() == CONTENT
    assert {path.split("/")[1] for _, path, _ in web.asked} == {"galip"}
    with pytest.raises(OSError, match=f"404.*{web.address}/galip/pre_cc12m.pth"):
        fetch("pre_cc12m.pth")


def test_a_file_that_has_changed_is_refused(web, home):
    web.files[COCO_ID] = CONTENT
    path = fetch(COCO)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match=f"{path} has changed since it was fetched"):
        fetch(COCO)
    path.with_name(f"{COCO}.json").write_text("{}")
    with pytest.raises(ValueError, match="json is damaged: delete it"):
        fetch(COCO)
    path.unlink()
    assert fetch(COCO).read_bytes() == CONTENT


def test_a_pinned_digest(web, home):
    digest = hashlib.sha256(CONTENT).hexdigest()
    home.mkdir()
    (home / "SHA256SUMS").write_text(f"{'0' * 64}  other\n{digest} *{COCO}\n")
    web.files[COCO_ID] = CONTENT[1:]
    with pytest.raises(ValueError, match=f"not the right file.*SUMS says {digest}"):
        fetch(COCO)
    assert left(home) == ["SHA256SUMS"]
    web.files[COCO_ID] = CONTENT
    fetch(COCO)
    (home / "SHA256SUMS").write_text(f"{digest.replace('a', 'b')}  {COCO}\n")
    with pytest.raises(ValueError, match="not the right file"):
        fetch(COCO)


@pytest.mark.parametrize("path", ["./", "downloads/", "C:\\galip\\downloads\\"])
def test_a_pin_with_a_path(web, home, path):
    home.mkdir()
    (home / "SHA256SUMS").write_text(f"# ours\n\n{'0' * 64}  {path}{COCO}\n")
    web.files[COCO_ID] = CONTENT
    with pytest.raises(ValueError, match="not the right file"):
        fetch(COCO)


@pytest.mark.parametrize(
    "line",
    [
        f"SHA256 ({COCO}) = {'0' * 64}".encode(),
        f"{'0' * 63}  {COCO}".encode(),
        b"0" * 64,
        b"\xff",
    ],
)
def test_a_pin_that_is_not_understood(web, home, line):
    home.mkdir()
    (home / "SHA256SUMS").write_bytes(line)
    web.files[COCO_ID] = CONTENT
    with pytest.raises(ValueError, match=r"SHA256SUMS(, line 1 is not|.*be read)"):
        fetch(COCO)
    assert left(home) == ["SHA256SUMS"]


def test_the_digest_in_a_name(web, home, monkeypatch):
    name = "pt_inception-2015-12-05-6726825d.pth"
    monkeypatch.setenv("GALIP_MIRROR", web.address)
    web.files[name] = CONTENT
    with pytest.raises(ValueError, match=r"SHA-256 is .*, and its name says 6726825d"):
        fetch(name)
    assert left(home) == []


def test_a_file_that_was_put_there_by_hand(web):
    path = path_of(COCO)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="a web page"):
        fetch(COCO)
    path.write_bytes(CONTENT)
    assert fetch(COCO) == path
    path.write_bytes(CONTENT[1:])
    with pytest.raises(ValueError, match="has changed"):
        fetch(COCO)
    assert web.asked == []


def test_a_full_disk(web, home, monkeypatch):
    web.files[COCO_ID] = CONTENT
    import gdown

    download = gdown.download

    def fill(*args, progress, **kwargs):
        def full(arrived, total):
            if arrived > 5 * PIECE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return download(*args, progress=full, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(gdown, "download", fill)
        with pytest.raises(OSError, match=r"disk is full: .* needs 680 MB") as caught:
            fetch(COCO)
    assert "\n" not in str(caught.value)
    assert left(home) == [path.name for path in parts(home)] != []
    assert fetch(COCO).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(web, monkeypatch):
    monkeypatch.setenv("GALIP_HOME", "/dev/null/galip")
    with pytest.raises(OSError, match=r"cannot be stored .*: set GALIP_HOME"):
        fetch(COCO)


def test_without_gdown(web, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ValueError, match=r"needs gdown: pip install 'galip-keras\[we"):
        fetch(COCO)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("GALIP_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    downloads = "galip_keras/downloads"
    assert path_of(COCO) == tmp_path / ".cache" / downloads / COCO
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert path_of(COCO) == tmp_path / "x" / downloads / COCO


def test_sources_are_complete():
    for name, source in SOURCES.items():
        assert bool(source.drive_id) + bool(source.hub_file) <= 1
        assert source.page.startswith("https://")
        assert "https://" in source.license, name
    for model in MODELS.values():
        assert SOURCES[model.checkpoint].must_accept
