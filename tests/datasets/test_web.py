"""Shards of img2dataset, complete or broken, become records or an error of one line."""

import json
import os
import sys
import tarfile
import tracemalloc

import archives
import numpy as np
import pytest
import stored
import tensorflow as tf
from drawn import encoded
from etils import epath
from marks import slow_on_torch
from PIL import Image
from stored import captions, is_red, skipped

from galip_keras.datasets import DATASETS, prepare, report, shards

# Preparing records has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

DAMAGED = "shard is truncated or damaged"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


def red_image(encode_format="jpg", size=(24, 20)):
    file_format = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[encode_format]
    return encoded(Image.new("RGB", size, "red"), file_format)


def metadata(key, caption, **columns):
    """The columns that img2dataset adds to those of its list."""
    return {
        "caption": caption,
        "url": f"https://example.com/{key}",
        "key": key,
        "status": "success",
        "error_message": None,
        "width": 24,
        "height": 20,
        "original_width": 24,
        "original_height": 20,
        "exif": "{}",
        "sha256": "0" * 64,
        **columns,
    }


def sample(key, caption="a bird", encode_format="jpg", **kwargs):
    """The members of a tar file about one image. None leaves one out."""
    parts = {
        encode_format: red_image(encode_format),
        "txt": caption.encode(),
        "json": json.dumps(metadata(key, caption), indent=4).encode(),
        **kwargs,
    }
    return [
        (f"{key}.{extension}", parts[extension])
        for extension in sorted(parts)
        if parts[extension] is not None
    ]


def write_tar(path, *members):
    path.parent.mkdir(exist_ok=True)
    archives.write_tar(path, members, "w|")
    # Both are beside every shard.
    path.with_suffix(".parquet").write_bytes(b"PAR1")
    path.with_name(f"{path.stem}_stats.json").write_text("{}")


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    if isinstance(value, str):
        value = value.encode()
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value or b""]))


def tf_example(key, caption="a bird", encode_format="jpg", **kwargs):
    """A serialized example. None leaves a feature out."""
    values = {
        "key": key,
        encode_format: red_image(encode_format),
        "txt": caption,
        **metadata(key, caption),
        "error_message": "",
        **kwargs,
    }
    features = {name: feature(v) for name, v in values.items() if v is not None}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def write_tfrecord(path, *lines):
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for line in lines:
            writer.write(line)
    path.with_suffix(".parquet").write_bytes(b"PAR1")


def prepared(folder, name="cc3m"):
    return prepare(
        f"{name}:{folder}", data_dir=folder.parent / "records", allow_bad=True
    )


def refusal(folder, error=ValueError):
    data_dir = folder.parent / "records"
    return stored.refusal(f"cc3m:{folder}", data_dir, error, allow_bad=True)


# Both formats


@pytest.mark.parametrize("encode_format", ["jpg", "png", "webp"])
def test_tar(folder, encode_format):
    write_tar(
        folder / "00000.tar",
        *sample("000000000", "a bird", encode_format),
        *sample("000000003", "ein Vögelchen", encode_format),
    )
    write_tar(
        folder / "00001.tar", *sample("000010000", "a fish ", encode_format, json=None)
    )
    builder = prepared(folder)
    assert captions(builder) == {
        "00000/000000000": ["a bird"],
        "00000/000000003": ["ein Vögelchen"],
        "00001/000010000": ["a fish"],
    }
    assert is_red(builder)
    assert report(builder) == []


@pytest.mark.parametrize("encode_format", ["jpg", "png", "webp"])
def test_tfrecord(folder, encode_format):
    write_tfrecord(
        folder / "00000.tfrecord",
        tf_example("000000000", "a bird", encode_format),
        tf_example("000000003", "ein Vögelchen", encode_format),
    )
    write_tfrecord(
        folder / "00001.tfrecord", tf_example("000010000", "a fish ", encode_format)
    )
    builder = prepared(folder)
    assert captions(builder) == {
        "00000/000000000": ["a bird"],
        "00000/000000003": ["ein Vögelchen"],
        "00001/000010000": ["a fish"],
    }
    assert is_red(builder)
    assert report(builder) == []


def test_caption_of_the_metadata(folder):
    write_tar(folder / "0.tar", *sample("0", "a bird", txt=None))
    write_tfrecord(folder / "0.tfrecord", tf_example("0", "a bird", txt=None))
    for suffix in (".tfrecord", ".tar"):
        other = folder.parent / suffix[1:]
        other.mkdir()
        (folder / f"0{suffix}").rename(other / f"0{suffix}")
        assert captions(prepared(other)) == {"0/0": ["a bird"]}


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_splits(folder, validation):
    write_tar(folder / "train" / "00000.tar", *sample("0", "a bird"))
    write_tar(folder / validation / "00000.tar", *sample("0", "a fish"))
    builder = prepared(folder)
    assert set(builder.info.splits) == {"train", "validation"}
    assert captions(builder, "train") == {"00000/0": ["a bird"]}
    assert captions(builder, "validation") == {"00000/0": ["a fish"]}


def test_both_names(folder):
    write_tar(folder / "00000.tar", *sample("0"))
    for name in ("cc3m", "cc12m"):
        builder = prepared(folder, name)
        assert builder.data_path.parent.name.startswith(f"{name}-")
        assert builder.info.metadata["source"] == str(folder)
    assert builder.info.description.startswith("Conceptual 12M")
    assert {name for name in DATASETS if "web" in DATASETS[name].builder} == {
        "cc3m",
        "cc12m",
    }


def test_changed_shards_are_prepared_again(folder):
    write_tar(folder / "00000.tar", *sample("0"))
    first = prepared(folder)
    (folder / "00000_stats.json").write_text('{"count": 1}')
    assert prepared(folder).data_path == first.data_path
    write_tar(folder / "00001.tar", *sample("1"))
    assert captions(prepared(folder)).keys() == {"00000/0", "00001/1"}
    write_tar(folder / "00001.tar", *sample("2"))
    os.utime(folder / "00001.tar", (1, 1))
    assert captions(prepared(folder)).keys() == {"00000/0", "00001/2"}


# Single bad examples


def test_bad_members_are_skipped_and_reported(folder):
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "good.jpg"
    write_tar(
        folder / "00000.tar",
        *sample("./good"),
        *sample("text", jpg=b"no image"),
        *sample("dot", jpg=red_image(size=(1, 1))),
        *sample("blind", jpg=None),
        *sample("silent", txt=None, json=None),
        *sample("null", txt=None, json=b'{"caption": null}'),
        *sample("list", txt=None, json=b"[]"),
        *sample("broken", txt=None, json=b'{"caption"'),
        *sample("blank", " \n"),
        *sample("latin", txt="ein Vögelchen".encode("latin-1")),
        *sample("good", "another"),
        ("._good.jpg", b"what macOS adds"),
        *sample("last"),
    )
    with tarfile.open(folder / "00000.tar", "a") as archive:
        archive.addfile(link)
    builder = prepared(folder)
    assert captions(builder) == {"00000/good": ["a bird"], "00000/last": ["a bird"]}
    assert skipped(builder) == {
        "cannot be read": ["00000/text"],
        "shorter side under 16 pixels": ["00000/dot"],
        "no image": ["00000/blind"],
        "no caption": [
            "00000/silent",
            "00000/null",
            "00000/list",
            "00000/broken",
        ],
        "blank caption": ["00000/blank"],
        "caption is not UTF-8": ["00000/latin"],
        "id occurs twice": ["00000/good"],
        "not a regular file": ["00000/link"],
    }
    left_out = (builder.data_path / "left_out.tsv").read_text().splitlines()
    assert len(left_out) == 11
    assert "no image\t00000/blind" in left_out


def test_bad_tfrecord_examples_are_skipped_and_reported(folder):
    write_tfrecord(
        folder / "00000.tfrecord",
        tf_example("good"),
        tf_example("text", jpg=b"no image"),
        tf_example("blind", jpg=None),
        tf_example("silent", txt=None, caption=None),
        tf_example("blank", ""),
        tf_example("latin", txt="ein Vögelchen".encode("latin-1")),
        tf_example("good", "another"),
        b"no example",
    )
    builder = prepared(folder)
    assert captions(builder) == {"00000/good": ["a bird"]}
    assert skipped(builder) == {
        "cannot be read": ["00000/text", "00000/record 7"],
        "no image": ["00000/blind"],
        "no caption": ["00000/silent"],
        "blank caption": ["00000/blank"],
        "caption is not UTF-8": ["00000/latin"],
        "id occurs twice": ["00000/good"],
    }


def test_an_image_twice_in_a_row(folder):
    write_tar(folder / "0.tar", *sample("0", "a bird"), *sample("0", "a fish"))
    builder = prepared(folder)
    assert captions(builder) == {"0/0": ["a bird"]}
    assert skipped(builder) == {"id occurs twice": ["0/0"]}


def test_more_than_a_hundredth_is_an_error(folder):
    write_tar(folder / "00000.tar", *sample("0"), *sample("1", jpg=None))
    with pytest.raises(ValueError, match=r"1 of 2 .*no image: 00000/1"):
        prepare(f"cc3m:{folder}", data_dir=folder.parent / "records")


# Size


def test_huge_members_are_refused_unread(folder):
    huge = bytes((shards._MAX_MEGABYTES + 1) * 10**6)
    write_tar(folder / "00000.tar", *sample("0"), *sample("1", jpg=huge))
    del huge
    tracemalloc.start()
    found = list(shards._read_shard(epath.Path(folder / "00000.tar")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record.name for record in found] == ["00000/0", "00000/1"]
    assert str(found[1].image) == "over 32 MB"
    assert peak < 5e6


def test_one_example_in_memory_at_a_time(folder):
    noise = np.random.default_rng(0).bytes(2**20)
    keys = [f"{number:03}" for number in range(40)]
    write_tar(folder / "0.tar", *(m for key in keys for m in sample(key, jpg=noise)))
    tracemalloc.start()
    names = [record.name for record in shards._read_shard(epath.Path(folder / "0.tar"))]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert names == [f"0/{key}" for key in keys]
    assert peak < 6e6


# Broken shards


def three(path):
    write_tar(path, *sample("0"), *sample("1"), *sample("2"))
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive.getmembers()}


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        # A file of members "0.jpg", "0.json", "0.txt", "1.jpg", ... ends
        (lambda members: members["1.jpg"].offset_data + 100, "0"),
        (lambda members: members["1.jpg"].offset, "0"),
        (lambda members: members["1.json"].offset + 100, "0"),
        (lambda members: members["2.txt"].offset, "012"),
        (lambda members: members["2.json"].offset, "01"),
        (lambda members: members["2.txt"].offset_data + 512, "012"),
    ],
    ids=["in data", "before a key", "in a header", "no text", "no json", "no end"],
)
def test_truncated_tar(folder, where, kept):
    members = three(folder / "00000.tar")
    os.truncate(folder / "00000.tar", where(members))
    write_tar(folder / "00001.tar", *sample("3"))
    builder = prepared(folder)
    assert captions(builder).keys() == {f"00000/{key}" for key in kept} | {"00001/3"}
    assert skipped(builder) == {DAMAGED: ["00000.tar"]}
    assert (builder.data_path / "left_out.tsv").read_text() == f"{DAMAGED}\t00000.tar\n"
    (line,) = report(builder)
    assert line == f"skipped 1 image: {DAMAGED}: 00000.tar"


def test_damaged_tar(folder):
    members = three(folder / "00000.tar")
    content = bytearray((folder / "00000.tar").read_bytes())
    content[members["1.jpg"].offset + 5] ^= 1
    (folder / "00000.tar").write_bytes(content)
    (folder / "00001.tar").write_bytes(b"")
    (folder / "00002.tar").write_bytes(b"<html>no tar file</html>" * 100)
    write_tar(folder / "00003.tar")
    builder = prepared(folder)
    assert captions(builder).keys() == {"00000/0"}
    assert skipped(builder) == {DAMAGED: ["00000.tar", "00001.tar", "00002.tar"]}


def test_no_damage_to_a_tar_goes_unnoticed_or_raises(folder):
    three(folder / "0.tar")
    content = (folder / "0.tar").read_bytes()
    whole = {f"0/{key}" for key in "012"}
    rng = np.random.default_rng(0)
    # Where headers are, and nothing else.
    with tarfile.open(folder / "0.tar") as archive:
        offsets = [member.offset for member in archive]
    for _ in range(300):
        broken = bytearray(content)
        broken[rng.choice(offsets) + rng.integers(512)] ^= 1 << rng.integers(8)
        (folder / "0.tar").write_bytes(broken)
        found = {r.name: r for r in shards._read_shard(epath.Path(folder / "0.tar"))}
        assert "0.tar" in found
        assert found.keys() <= whole | {"0.tar"}


@pytest.mark.parametrize("damage", ["truncated", "checksum", "length", "no record"])
def test_damaged_tfrecord(folder, damage):
    path = folder / "00000.tfrecord"
    first = tf_example("0")
    write_tfrecord(path, first, tf_example("1"), tf_example("2"))
    content = bytearray(path.read_bytes())
    # A record is its length and a checksum, its content and a checksum.
    start = 8 + 4 + len(first) + 4
    if damage == "truncated":
        del content[start + 100 :]
    elif damage == "checksum":
        content[start + 100] ^= 1
    elif damage == "length":
        content[start + 7] ^= 1
    else:
        content = b"<html>no record</html>" * 100
    path.write_bytes(content)
    write_tfrecord(folder / "00001.tfrecord", tf_example("3"))
    builder = prepared(folder)
    kept = {"00001/3"} if damage == "no record" else {"00000/0", "00001/3"}
    assert captions(builder).keys() == kept
    assert skipped(builder) == {DAMAGED: ["00000.tfrecord"]}


# Folders that cannot be used


def test_without_a_path_the_error_has_a_command():
    for name in ("cc3m", "cc12m"):
        with pytest.raises(ValueError, match=f"given as {name}:PATH: img2dataset"):
            prepare(name)


def test_no_shards(folder):
    assert "does not exist" in refusal(folder / "nothing", FileNotFoundError)
    (folder / "file").touch()
    assert "is a file" in refusal(folder / "file")
    assert "holds no shards: give the folder" in refusal(folder)
    write_tar(folder / "00000.tar")
    assert "no usable images for train" in refusal(folder)


def test_two_formats(folder):
    write_tar(folder / "00000.tar", *sample("0"))
    write_tfrecord(folder / "00000.tfrecord", tf_example("0"))
    assert "holds both .tar and .tfrecord files" in refusal(folder)


def test_unclear_splits(folder):
    write_tar(folder / "val" / "00000.tar", *sample("0"))
    assert "has val but no train folder" in refusal(folder)
    write_tar(folder / "train" / "00000.tar", *sample("0"))
    write_tar(folder / "00000.tar", *sample("0"))
    assert "has shards beside train" in refusal(folder)
    (folder / "00000.tar").unlink()
    (folder / "validation").mkdir()
    assert "has both validation and val" in refusal(folder)
    (folder / "val" / "00000.tar").unlink()
    (folder / "validation").rmdir()
    assert f"{folder / 'val'} holds no shards" in refusal(folder)


def test_buckets_that_cannot_be_reached(tmp_path):
    # No file system has this scheme.
    with pytest.raises(OSError, match="s3://bucket/cc3m cannot be read") as info:
        prepare("cc3m:s3://bucket/cc3m", data_dir=tmp_path)
    assert "\n" not in str(info.value)


# Apache Beam


def on_beam(folder, **kwargs):
    return prepare(
        f"cc3m:{folder}",
        data_dir=folder.parent / "beam",
        beam_runner="DirectRunner",
        **kwargs,
    )


@pytest.mark.extra("beam", "apache_beam")
def test_beam_makes_the_same_records(folder):
    good = [
        [m for n in range(s, s + 3) for m in sample(str(n), "a" * 1001)]
        for s in (0, 3, 6)
    ]
    write_tar(folder / "train" / "00000.tar", *good[0], *sample("x", jpg=None))
    write_tar(folder / "train" / "00001.tar", *good[1], *sample("y"))
    os.truncate(folder / "train" / "00001.tar", 15 * 1024)
    write_tar(folder / "validation" / "00000.tar", *good[2])
    expected, builder = prepared(folder), on_beam(folder, allow_bad=True)
    assert skipped(expected).keys() == {"no image", DAMAGED}
    for split in ("train", "validation"):
        assert captions(builder, split) == captions(expected, split)
    # Beam returns the shards in any order.
    for reason, names in skipped(expected).items():
        assert sorted(skipped(builder).pop(reason)) == sorted(names)
    assert skipped(builder).keys() == skipped(expected).keys()
    for built in (builder, expected):
        assert len(built.info.metadata["long_captions"]) == 9
    assert {path.name for path in builder.data_path.iterdir()} == {
        path.name for path in expected.data_path.iterdir()
    }


@pytest.mark.extra("beam", "apache_beam")
def test_beam_counts_left_out_images(folder):
    write_tar(folder / "00000.tar", *sample("0"), *sample("1", jpg=None))
    with pytest.raises(ValueError, match=r"1 of 2 .*no image: 00000/1"):
        on_beam(folder)


def test_beam_needs_its_package(folder, monkeypatch):
    # Other tests may have loaded it, submodules and all.
    for name in ("apache_beam", "apache_beam.options.pipeline_options"):
        monkeypatch.setitem(sys.modules, name, None)
    write_tar(folder / "00000.tar", *sample("0"))
    with pytest.raises(ValueError, match=r"pip install 'galip-keras\[beam\]'"):
        on_beam(folder)


@slow_on_torch
def test_training_on_it(train, folder):
    write_tar(folder / "00000.tar", *sample("0"), *sample("1"))
    train(f"cc12m:{folder}")


@slow_on_torch
def test_training_on_tfrecords(train, folder):
    write_tfrecord(folder / "00000.tfrecord", tf_example("0"), tf_example("1"))
    train(f"cc3m:{folder}")
