"""A folder, in any layout and state, becomes records or a clear error of one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import child
import numpy as np
import pytest
import stored
import tensorflow_datasets as tfds
from drawn import noise
from PIL import Image
from stored import captions, skipped

from galip_keras.datasets import prepare, report
from galip_keras.files import files_below

REPOSITORY = Path(__file__).resolve().parents[2]
EMOJI = REPOSITORY.parent / "shared" / "data" / "fluent_emoji"

# Preparing records has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def write_image(path, size=(24, 20), color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def pair(path, caption="a bird", **kwargs):
    write_image(path, **kwargs)
    path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def jsonl(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def prepared(folder):
    return prepare(
        f"folder:{folder}", data_dir=folder.parent / "records", allow_bad=True
    )


def refusal(folder, error=ValueError):
    return stored.refusal(
        f"folder:{folder}", folder.parent / "records", error, allow_bad=True
    )


def test_example(folder):
    pair(folder / "a.png", size=(30, 20), color=(200, 30, 40))
    (example,) = tfds.as_numpy(prepared(folder).as_dataset(split="train"))
    assert example["image"].shape == (304, 456, 3)
    np.testing.assert_allclose(example["image"][150, 200], (200, 30, 40), atol=3)
    assert example["id"] == b"a.png"
    assert list(example["captions"]) == [b"a bird"]


# Layouts


def test_jsonl(folder):
    write_image(folder / "a.png")
    write_image(folder / "deep" / "b.JPG")
    jsonl(
        folder / "metadata.jsonl",
        {"file_name": "a.png", "text": "a bird", "other": 1},
        {"file_name": "./deep/b.JPG", "text": ["a fish", " ", "ein Vögel\u2028chen "]},
    )
    builder = prepared(folder)
    assert captions(builder) == {
        "a.png": ["a bird"],
        "deep/b.JPG": ["a fish", "ein Vögel\u2028chen"],
    }
    assert report(builder) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_rows_about_one_file_are_several_captions(folder, encoding):
    write_image(folder / "a.png")
    write_image(folder / "b.png")
    (folder / "metadata.csv").write_text(
        'file_name,text\na.png,"a bird, sitting"\nb.png,a fish\na.png,ein Vögelchen\n',
        encoding=encoding,
    )
    assert captions(prepared(folder)) == {
        "a.png": ["a bird, sitting", "ein Vögelchen"],
        "b.png": ["a fish"],
    }


@pytest.mark.parametrize("column", ["text", "caption", "captions"])
def test_names_of_the_caption_column(folder, column):
    write_image(folder / "a.png")
    jsonl(folder / "metadata.jsonl", {"file_name": "a.png", column: "a bird"})
    assert captions(prepared(folder)) == {"a.png": ["a bird"]}
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(f"file_name,{column}\na.png,a fish\n")
    assert captions(prepared(folder)) == {"a.png": ["a fish"]}


def test_pairs(folder):
    pair(folder / "a.png", "\ufeffa bird\n\n  a small bird \r\n")
    pair(folder / "deep" / "er" / "b.WebP", "a fish")
    (folder / "deep" / "er" / "b.txt").rename(folder / "deep" / "er" / "b.TXT")
    assert captions(prepared(folder)) == {
        "a.png": ["a bird", "a small bird"],
        "deep/er/b.WebP": ["a fish"],
    }


def test_hidden_files_are_ignored(folder):
    pair(folder / "a.png")
    pair(folder / ".b.png")
    pair(folder / ".hidden" / "c.png")
    builder = prepared(folder)
    assert captions(builder).keys() == {"a.png"}
    assert report(builder) == []


def test_links(folder, tmp_path):
    pair(tmp_path / "elsewhere" / "a.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(folder)
    (folder / "dangling.png").symlink_to(tmp_path / "nothing.png")
    assert captions(prepared(folder)).keys() == {"linked/a.png"}


@pytest.mark.parametrize("link", ["a", "latest", "deep/a"])
@pytest.mark.parametrize("named", ["images", "the link"])
@pytest.mark.parametrize("is_older", [True, False])
def test_a_real_name_comes_before_a_link(folder, link, named, is_older):
    (folder / link).parent.mkdir(exist_ok=True)
    for is_link in (is_older, not is_older):
        if is_link:
            (folder / link).symlink_to(folder / "images")
        else:
            write_image(folder / "images" / "a.png")
    name = link if named == "the link" else named
    jsonl(folder / "metadata.jsonl", {"file_name": f"{name}/a.png", "text": "a bird"})
    assert files_below(folder) == ["images/a.png", "metadata.jsonl"]
    builder = prepared(folder)
    assert captions(builder) == {"images/a.png": ["a bird"]}
    assert report(builder) == []


def test_names_that_are_not_utf_8(folder):
    name = os.fsdecode(b"bl\xe5.png")
    try:
        pair(folder / name)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    write_image(folder / f"x\n{name}")
    builder = prepared(folder)
    (example,) = tfds.as_numpy(builder.as_dataset(split="train"))
    assert example["id"] == b"bl\xe5.png"
    assert report(builder) == ["skipped 1 image: no caption: x?bl?.png"]


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "Validation"])
def test_splits_each_in_its_layout(folder, validation):
    pair(folder / "train" / "a.png")
    write_image(folder / "test" / "b.png")
    jsonl(folder / "test" / "metadata.jsonl", {"file_name": "b.png", "text": "b"})
    write_image(folder / validation / "c" / "c.png")
    (folder / validation / "metadata.csv").write_text("file_name,text\nc/c.png,c")
    write_image(folder / "stray.png")
    builder = prepared(folder)
    assert set(builder.info.splits) == {"train", "test", "validation"}
    assert captions(builder, "train").keys() == {"train/a.png"}
    assert captions(builder, "test").keys() == {"test/b.png"}
    assert captions(builder, "validation").keys() == {f"{validation}/c/c.png"}
    assert skipped(builder) == {"outside the split folders": ["stray.png"]}


# Single bad images


def test_bad_images_are_skipped_and_reported(folder):
    pair(folder / "good.png")
    pair(folder / "truncated.jpg")
    noise((60, 40)).save(folder / "truncated.jpg")
    os.truncate(folder / "truncated.jpg", 2000)
    pair(folder / "text.png")
    (folder / "text.png").write_text("no image")
    pair(folder / "dot.png", size=(1, 1))
    pair(folder / "line.png", size=(20000, 20))
    write_image(folder / "silent.png")
    (folder / "orphan.txt").write_text("a caption")
    pair(folder / "blank.png", " \n\n\t")
    pair(folder / "latin.png")
    (folder / "latin.txt").write_bytes("ein Vögelchen".encode("latin-1"))
    builder = prepared(folder)
    assert captions(builder).keys() == {"good.png"}
    assert skipped(builder) == {
        "cannot be read": ["text.png", "truncated.jpg"],
        "shorter side under 16 pixels": ["dot.png"],
        "longer than 8:1": ["line.png"],
        "no caption": ["silent.png"],
        "no image": ["orphan.txt"],
        "blank caption": ["blank.png"],
        "caption is not UTF-8": ["latin.png"],
    }
    (line,) = report(builder)
    assert line.startswith("skipped 8 images: ")
    assert line.endswith("; cannot be read: text.png, truncated.jpg")


def test_bad_rows_are_skipped_and_reported(folder, tmp_path):
    write_image(tmp_path / "outside.png")
    write_image(folder / "good.png")
    write_image(folder / "null.png")
    write_image(folder / "silent.png")
    write_image(folder / "empty.png")
    jsonl(
        folder / "metadata.jsonl",
        {"file_name": "good.png", "text": "half a pair: \ud83d"},
        {"file_name": "null.png", "text": None},
        {"file_name": "empty.png", "text": []},
        {"file_name": "missing.png", "text": "a bird"},
        {"file_name": "nul\0.png", "text": "a bird"},
        {"file_name": "../outside.png", "text": "a bird"},
        {"file_name": str(tmp_path / "outside.png"), "text": "a bird"},
    )
    builder = prepared(folder)
    assert captions(builder) == {"good.png": ["half a pair: ?"]}
    assert skipped(builder) == {
        "outside the folder": ["../outside.png", str(tmp_path / "outside.png")],
        "blank caption": ["empty.png", "null.png"],
        "no caption": ["silent.png"],
        "no image": ["missing.png", "nul\0.png"],
    }


def test_long_captions_are_kept_and_reported(folder):
    pair(folder / "a.png", "a" * 1000)
    pair(folder / "b.png", "b" * 1001)
    pair(folder / "c.png", "a bird, " * 25)
    pair(folder / "d.png", "a bird, " * 25 + "red")
    builder = prepared(folder)
    assert len(captions(builder)["b.png"][0]) == 1001
    (line,) = report(builder)
    assert line.startswith("2 images with a caption over 77 tokens")
    assert line.endswith("only the first 77 are read: b.png, d.png")


def test_report_shows_ten_names_and_is_kept(folder):
    pair(folder / "good.png")
    for number in range(13):
        write_image(folder / f"{number:02}.png")
    names = ", ".join(f"{number:02}.png" for number in range(10))
    expected = [f"skipped 13 images: no caption: {names} and 3 more"]
    assert report(prepared(folder)) == expected
    assert report(prepared(folder)) == expected


# Folders that cannot be used


def test_unknown_datasets():
    for dataset in ("birds", "folder", "folder:", "Folder:birds", ""):
        with pytest.raises(ValueError, match="folder"):
            prepare(dataset)


def test_no_folder(folder, tmp_path):
    assert "does not exist" in refusal(tmp_path / "nothing", FileNotFoundError)
    (tmp_path / "file").touch()
    assert "is a file" in refusal(tmp_path / "file")
    assert "holds no images" in refusal(folder)


def test_no_captions(folder):
    write_image(folder / "a.png")
    assert "has no captions: add metadata.jsonl" in refusal(folder)


def test_unclear_splits(folder):
    pair(folder / "test" / "a.png")
    assert "has test but no train" in refusal(folder)
    pair(folder / "train" / "a.png")
    pair(folder / "val" / "a.png")
    pair(folder / "valid" / "a.png")
    assert "has both val and valid: keep one" in refusal(folder)
    shutil.rmtree(folder / "val")
    jsonl(folder / "metadata.jsonl", {"file_name": "train/a.png", "text": "a"})
    assert "is beside train: move it into train" in refusal(folder)
    (folder / "metadata.jsonl").unlink()
    (folder / "valid" / "a.png").unlink()
    assert f"{folder / 'valid'} holds no images" in refusal(folder)


def test_two_metadata_files(folder):
    write_image(folder / "a.png")
    jsonl(folder / "metadata.jsonl", {"file_name": "a.png", "text": "a"})
    (folder / "metadata.csv").write_text("file_name,text\na.png,a")
    assert "has both metadata.jsonl and metadata.csv: keep one" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", b'\n{"file_name": "a.png",\n', "line 2 is not JSON"),
        ("metadata.jsonl", b"[" * 100000, "line 1 is not JSON"),
        ("metadata.jsonl", b'["a.png", "a"]', "line 1 is not a JSON object"),
        ("metadata.jsonl", b'{"title": "a.png", "text": "a"}', "1 has no file_name"),
        ("metadata.jsonl", b'{"file_name": "a.png"}', "line 1 has no text"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "\xe5"}', "is not UTF-8"),
        ("metadata.csv", b"", "line 1 has no file_name"),
        ("metadata.csv", b"file_name,TEXT,Text\na.png,a,b", "(TEXT, Text): choose one"),
        ("metadata.csv", b"image,prompt,sentence\na.png,a,b", "(prompt, sentence)"),
        ("metadata.csv", b"title;text\na.png;a", "line 1 has no file_name"),
        ("metadata.csv", b"file_name,title\na.png,a", "line 1 has no text"),
        ("metadata.csv", b"file_name,text\na.png,a, b", "2 has more values than col"),
        ("metadata.csv", b"file_name,text\na.png," + b"a" * 200000, "line 2: field l"),
        ("metadata.csv", b"file_name,text\na.png,\xe5", "is not UTF-8"),
    ],
)
def test_unreadable_metadata(folder, name, content, message):
    write_image(folder / "a.png")
    (folder / name).write_bytes(content)
    line = refusal(folder)
    assert line.startswith(str(folder / name))
    assert message in line


def test_nothing_usable_until_repaired(folder):
    pair(folder / "a.png", size=(1, 1))
    pair(folder / "b.png", " ")
    line = refusal(folder)
    assert line.startswith("no usable images for train")
    assert line.endswith("shorter side under 16 pixels: a.png; blank caption: b.png")
    pair(folder / "a.png")
    assert captions(prepared(folder)).keys() == {"a.png"}


# Preparing once


def test_an_unchanged_folder_is_not_prepared_again(folder):
    pair(folder / "a.png")
    first = Path(prepared(folder).data_dir)
    # Preparing again would write new files, with other inodes.
    before = {path.name: path.stat().st_ino for path in first.iterdir()}
    second = Path(prepared(folder).data_dir)
    assert second == first
    assert {path.name: path.stat().st_ino for path in second.iterdir()} == before


def test_records_inside_the_folder_do_not_change_it(folder):
    pair(folder / "a.png")
    paths = [prepare(f"folder:{folder}", folder / "records") for _ in range(2)]
    assert paths[0].data_path == paths[1].data_path


def test_a_changed_folder_is_prepared_again(folder):
    pair(folder / "a.png")
    assert captions(prepared(folder)) == {"a.png": ["a bird"]}
    pair(folder / "b.png", "a fish")
    assert len(captions(prepared(folder))) == 2
    (folder / "b.txt").write_text("two fish")
    assert captions(prepared(folder))["b.png"] == ["two fish"]
    (folder / "b.png").unlink()
    assert captions(prepared(folder)).keys() == {"a.png"}
    # The same size at the same time: the content of metadata counts.
    for text in ("a cat", "a dog"):
        jsonl(folder / "metadata.jsonl", {"file_name": "a.png", "text": text})
        os.utime(folder / "metadata.jsonl", (1, 1))
        assert captions(prepared(folder)) == {"a.png": [text]}


def test_nothing_on_standard_output(folder, capfd):
    pair(folder / "a.png")
    prepared(folder)
    prepared(folder)
    out, err = capfd.readouterr()
    assert out == ""
    assert "custom data configuration" not in err


def test_half_prepared_data_is_ignored_and_a_lost_race_is_no_error(folder, tmp_path):
    pair(folder / "0.png")
    noise((1500, 1000)).save(folder / "0.png")
    for number in range(1, 20):
        shutil.copy(folder / "0.png", folder / f"{number}.png")
        shutil.copy(folder / "0.txt", folder / f"{number}.txt")
    code = (
        "from galip_keras.datasets import prepare\n"
        f"builder = prepare('folder:{folder}', {str(tmp_path / 'records')!r})\n"
        "print(builder.info.splits['train'].num_examples)"
    )
    command = [sys.executable, "-c", code]
    env = child.environment()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as other:
        half = wait_for(tmp_path / "records", "folder/*/incomplete*", other)
        other.send_signal(signal.SIGSTOP)
        try:
            assert half.exists()
            assert not (half.parent / "1.0.0").exists()
            assert len(captions(prepared(folder))) == 20
        finally:
            other.send_signal(signal.SIGCONT)
        out, _ = other.communicate(timeout=60)
    assert (other.returncode, out) == (0, b"20\n")
    assert not half.exists()


def wait_for(folder, pattern, process):
    while process.poll() is None:
        if found := list(folder.glob(pattern)):
            return found[0]
        time.sleep(0.005)
    raise AssertionError(f"the process ended before {pattern} appeared")


def test_a_full_disk(folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        for number in range(4):
            noise((304, 304), seed=number).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text("noise")
        with pytest.raises(OSError, match="No space left on device") as info:
            prepare(f"folder:{folder}", disk)
        assert info.value.filename == str(disk)
        assert not [path for path in disk.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_import_is_cheap():
    code = "import sys, galip_keras.datasets; sys.exit('tensorflow' in sys.modules)"
    child.run(code)


@pytest.mark.slow
@pytest.mark.skipif(not EMOJI.exists(), reason="needs the emoji dataset")
def test_fluent_emoji(tmp_path):
    builder = prepare(f"folder:{EMOJI / 'test'}", data_dir=tmp_path)
    assert builder.info.splits["train"].num_examples == 180
    assert report(builder) == []
    assert captions(builder)["0036-fe0f-20e3.webp"] == [
        "keycap: 6",
        "an emoji of a keycap: 6",
        "keycap: 6, keycap",
    ]
