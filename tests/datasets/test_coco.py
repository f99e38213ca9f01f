"""COCO 2014, from miniature zips with the layout of the real ones."""

import hashlib
import json
import os
import time

import numpy as np
import pytest
import stored
import tensorflow_datasets as tfds
from archives import write_folder, write_zip, zip_bytes
from drawn import encoded
from marks import slow_on_torch
from PIL import Image
from stored import examples, skipped
from tensorflow_datasets.core.download.checksums import UrlInfo

from galip_keras.datasets import coco, find, prepare, report
from galip_keras.downloads.sources import SOURCES

# Preparing records has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

NUMBERS = {"train2014": [9, 25, 30], "val2014": [42, 73]}
COLORS = {9: "red", 25: "green", 30: "blue", 42: "black", 73: "white"}


def file_name(folder, number):
    return f"COCO_{folder}_{number:012}.jpg"


def captions(number):
    # In the order of the annotations, which is not alphabetical.
    return [
        f"{word} about {number}" for word in ("one", "two", "three", "four", "five")
    ]


def annotations(folder):
    numbers = NUMBERS[folder]
    # The captions of several images are mixed, as in the real file.
    rows = [(n, k) for k in range(5) for n in reversed(numbers)]
    return {
        "info": {"year": 2014},
        "licenses": [],
        "images": [
            {"id": n, "file_name": file_name(folder, n), "width": 40, "height": 30}
            for n in numbers
        ],
        "annotations": [
            {"id": 7 * i, "image_id": n, "caption": f"{captions(n)[k]}\n"}
            for i, (n, k) in enumerate(rows)
        ],
    }


def jpeg(color):
    return encoded(Image.new("RGB", (40, 30), color))


def images(folder):
    return {
        f"{folder}/{file_name(folder, n)}": jpeg(COLORS[n]) for n in NUMBERS[folder]
    }


def json_files(**changes):
    files = {"annotations/instances_train2014.json": "{}"}
    for folder in NUMBERS:
        name = f"captions_{folder}"
        content = changes.get(name, annotations(folder))
        if isinstance(content, dict | list):
            content = json.dumps(content)
        if content is not None:
            files[f"annotations/{name}.json"] = content
    return files


def zips(root, **changes):
    root.mkdir(exist_ok=True)
    for folder in NUMBERS:
        write_zip(root / f"{folder}.zip", images(folder))
    write_zip(root / "annotations_trainval2014.zip", json_files(**changes))
    return root


def unpacked(root, **changes):
    for folder in NUMBERS:
        write_folder(root, images(folder))
    write_folder(root, json_files(**changes))
    return root


WRITE = {"zips": zips, "folders": unpacked}


def prepared(root, tmp_path, **options):
    return prepare(f"coco:{root}", tmp_path / "data", **options)


def refusal(root, tmp_path, error=ValueError):
    return stored.refusal(f"coco:{root}", tmp_path / "data", error)


# Layouts


@pytest.mark.parametrize("layout", ["zips", "folders"])
def test_coco(tmp_path, layout):
    builder = prepared(WRITE[layout](tmp_path / "coco"), tmp_path)
    assert list(builder.info.splits) == ["train", "validation"]
    for split, folder in {"train": "train2014", "validation": "val2014"}.items():
        found = examples(builder, split)
        assert found.keys() == {file_name(folder, n) for n in NUMBERS[folder]}
        for number in NUMBERS[folder]:
            example = found[file_name(folder, number)]
            texts = [text.decode() for text in example["captions"]]
            assert texts == captions(number)
            assert example["image"].shape == (304, 405, 3)
            color = Image.new("RGB", (1, 1), COLORS[number]).getpixel((0, 0))
            np.testing.assert_allclose(example["image"][9, 9], color, atol=3)
    assert report(builder) == []
    assert builder.info.metadata["note"] == ""
    assert "CC BY 4.0" in builder.info.redistribution_info.license


def metadata():
    """The archive of the authors, as far as it is known."""
    names = [
        file_name(folder, n).removesuffix(".jpg")
        for folder in NUMBERS
        for n in NUMBERS[folder]
    ]
    files = {f"coco/text/{name}.txt": f"theirs of {name}\nagain\n" for name in names}
    return zip_bytes({**files, "coco/example_captions.txt": "a dog\n"})


def test_captions_of_the_paper(tmp_path, web):
    root = zips(tmp_path / "coco")
    web.files[SOURCES["coco_metadata.zip"].drive_id] = metadata()
    builder = prepared(root, tmp_path, captions="paper")
    name = file_name("val2014", 42)
    texts = stored.captions(builder, "validation")[name]
    assert texts == ["theirs of COCO_val2014_000000000042", "again"]
    count = len(web.asked)
    assert prepared(root, tmp_path, captions="paper").data_path == builder.data_path
    assert len(web.asked) == count > 0
    assert prepared(root, tmp_path).data_path != builder.data_path
    # An image without captions is left out.
    names = file_name("train2014", 9), file_name("val2014", 42)
    files = {f"text/{name[:-4]}.txt": "one" for name in names}
    path = write_zip(tmp_path / "some.zip", files)
    builder = prepared(root, tmp_path, captions=str(path), allow_bad=True)
    assert len(skipped(builder)["no caption"]) == 3


def test_some_unpacked(tmp_path):
    root = zips(tmp_path / "coco")
    (root / "val2014.zip").unlink()
    write_folder(root, images("val2014"))
    builder = prepared(root, tmp_path)
    assert len(examples(builder, "validation")) == 2


@pytest.mark.parametrize("layout", ["zips", "folders"])
def test_order_of_the_annotations(tmp_path, layout):
    builder = find(f"coco:{WRITE[layout](tmp_path / 'coco')}", tmp_path / "data")
    splits = builder._splits(None, {})
    names = [record.name for record in splits["train"]]
    assert names == [file_name("train2014", n) for n in NUMBERS["train2014"]]


# Single bad images


@pytest.mark.parametrize("layout", ["zips", "folders"])
def test_bad_images_are_skipped(tmp_path, layout):
    data = annotations("train2014")
    for number, name in [(31, "silent.jpg"), (32, "gone.jpg"), (33, "../secret.jpg")]:
        data["images"].append({"id": number, "file_name": name})
        if number != 31:
            data["annotations"].append({"image_id": number, "caption": "a caption"})
    data["annotations"].append({"image_id": 25, "caption": "half a pair: \ud83d"})
    root = WRITE[layout](tmp_path / "coco", captions_train2014=data)
    (root / "secret.jpg").write_bytes(jpeg("red"))
    bad = images("val2014") | {f"val2014/{file_name('val2014', 42)}": b"no image"}
    if layout == "zips":
        write_zip(root / "val2014.zip", bad)
    else:
        write_folder(root, bad)
    assert "`allow_bad`" in refusal(root, tmp_path)
    builder = prepared(root, tmp_path, allow_bad=True)
    outside = "no image" if layout == "zips" else "outside the folder"
    assert sorted(n for names in skipped(builder).values() for n in names) == sorted(
        ["silent.jpg", "gone.jpg", "../secret.jpg", file_name("val2014", 42)]
    )
    assert skipped(builder)["no caption"] == ["silent.jpg"]
    assert skipped(builder)["cannot be read"] == [file_name("val2014", 42)]
    assert "gone.jpg" in skipped(builder)["no image"]
    assert "../secret.jpg" in skipped(builder)[outside]
    found = examples(builder, "train")[file_name("train2014", 25)]["captions"]
    assert found[-1] == b"half a pair: ?"
    assert report(builder)[0].startswith("skipped 4 images: ")
    assert (
        "no caption\tsilent.jpg\n" in (builder.data_path / "left_out.tsv").read_text()
    )


def test_a_damaged_member_is_skipped(tmp_path):
    root = zips(tmp_path / "coco")
    data = (root / "train2014.zip").read_bytes()
    image = jpeg("green")
    broken = data.replace(image, image[:-9] + b"x" * 9)
    assert broken != data
    (root / "train2014.zip").write_bytes(broken)
    builder = prepared(root, tmp_path, allow_bad=True)
    assert skipped(builder) == {
        "damaged in the archive": [file_name("train2014", 25)],
    }


# What cannot be used


def test_no_folder(tmp_path):
    root = tmp_path / "coco"
    assert "does not exist" in refusal(root, tmp_path, FileNotFoundError)
    zips(root)
    assert "is a file" in refusal(root / "val2014.zip", tmp_path)
    (root / "val2014.zip").unlink()
    line = refusal(root, tmp_path, FileNotFoundError)
    assert (
        line == f"{root} has neither val2014.zip nor a folder val2014: add one of them"
    )


def test_other_captions(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other.zip does not exist: give the"):
        prepared(zips(tmp_path / "coco"), tmp_path, captions="other.zip")


@pytest.mark.parametrize(
    "name", ["train2014.zip", "val2014.zip", "annotations_trainval2014.zip"]
)
def test_truncated_zip(tmp_path, name):
    root = zips(tmp_path / "coco")
    os.truncate(root / name, (root / name).stat().st_size * 2 // 3)
    line = refusal(root, tmp_path)
    expected = f"{root / name} is not a zip archive, or is truncated: fetch it again"
    assert line == expected


@pytest.mark.parametrize("layout", ["zips", "folders"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no captions_val2014.json"),
        ("{", "captions_val2014.json is not JSON"),
        ("[" * 100000, "captions_val2014.json is not JSON"),
        (b"\xe5", "captions_val2014.json is not JSON"),
        ([1], "captions_val2014.json has no usable images"),
        ({"images": []}, "captions_val2014.json has no usable annotations"),
        ({"images": [{"id": 1}]}, "images has no usable file_name"),
        ({"images": [{"file_name": "a"}]}, "images has no usable id"),
        ({"images": [], "annotations": [{"caption": "a"}]}, "no usable image_id"),
        ({"images": [], "annotations": [{"image_id": 1}]}, "no usable caption"),
        (
            {"images": [], "annotations": [{"image_id": 1, "caption": "a"}]},
            "a caption is about 1, an unknown image",
        ),
        ({"images": [], "annotations": []}, "no usable images for validation"),
    ],
)
def test_broken_annotations(tmp_path, layout, content, message):
    root = WRITE[layout](tmp_path / "coco", captions_val2014=content)
    line = refusal(root, tmp_path, (ValueError, OSError))
    assert str(root) in line
    assert message in line


# Which records belong to which archives


def name(root, tmp_path):
    return find(f"coco:{root}", tmp_path / "data").builder_config.name


def published(monkeypatch, root, base):
    """Make three zips the official ones."""
    infos = {}
    for part in coco.Coco.url_infos:
        part = part.rpartition("/")[2]
        data = (root / part).read_bytes()
        checksum = hashlib.sha256(data).hexdigest()
        infos[f"{base}/{part}"] = UrlInfo(
            tfds.core.utils.Size(len(data)), checksum, part
        )
    monkeypatch.setattr(coco.Coco, "url_infos", infos)


def test_the_official_zips_need_no_network_later(tmp_path, monkeypatch):
    root = zips(tmp_path / "coco")
    published(monkeypatch, root, "http://images.cocodataset.invalid")
    first = prepared(root, tmp_path)
    again = prepare("coco", tmp_path / "data")
    assert again.data_path == first.data_path
    assert len(examples(again, "train")) == 3


def test_the_real_sizes_are_official(tmp_path):
    root = tmp_path / "coco"
    root.mkdir()
    sizes = {
        "train2014.zip": 13510573713,
        "val2014.zip": 6645013297,
        "annotations_trainval2014.zip": 252872794,
    }
    for part, size in sizes.items():
        (root / part).touch()
        os.truncate(root / part, size)
    official = find("coco", tmp_path / "data").builder_config.name
    assert name(root, tmp_path) == official == "official"


def test_other_content_has_other_records(tmp_path):
    root = zips(tmp_path / "coco")
    names = [name(root, tmp_path)]
    assert names == [name(root, tmp_path)]
    os.utime(root / "val2014.zip", (1, 1))
    names.append(name(root, tmp_path))
    folder = unpacked(tmp_path / "unpacked")
    names.append(name(folder, tmp_path))
    (folder / "annotations" / "captions_val2014.json").write_text("{}")
    names.append(name(folder, tmp_path))
    assert len(set(names)) == len(names)


# Downloads


def test_download(tmp_path, server, monkeypatch):
    root = zips(tmp_path / "served")
    published(monkeypatch, root, server)
    builder = prepare("coco", tmp_path / "data")
    assert len(examples(builder, "train")) == 3
    assert len(examples(builder, "validation")) == 2


def test_wrong_checksum(tmp_path, server, monkeypatch):
    root = zips(tmp_path / "served")
    published(monkeypatch, root, server)
    write_zip(root / "val2014.zip", {"val2014/a.jpg": b"other"})
    with pytest.raises(OSError, match="with a wrong checksum") as info:
        prepare("coco", tmp_path / "data")
    assert str(info.value).startswith(f"{server}/val2014.zip arrived")
    assert "\n" not in str(info.value)


def test_no_network(tmp_path, monkeypatch, capfd):
    # A name that never resolves, by RFC 2606.
    base = "http://images.cocodataset.invalid"
    published(monkeypatch, zips(tmp_path / "coco"), base)
    begin = time.monotonic()
    with pytest.raises(OSError, match="no connection") as info:
        prepare("coco", tmp_path / "data")
    assert time.monotonic() - begin < 20
    line = str(info.value)
    for part in ("train2014", "val2014", "annotations_trainval2014"):
        assert f"{base}/{part}.zip" in line
    assert line.endswith("give coco:PATH as `dataset`")
    assert "\n" not in line
    assert capfd.readouterr().out == ""


@slow_on_torch
def test_training_on_it(train, tmp_path):
    train(f"coco:{zips(tmp_path / 'coco')}")
