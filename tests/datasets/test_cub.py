"""CUB-200-2011 and its captions, from miniature archives with the real layout."""

import hashlib
import os
import pickle
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import stored
import tensorflow_datasets as tfds
from archives import write_folder, write_tar, write_zip, zip_bytes
from drawn import decoded, encoded, noise
from marks import slow_on_torch
from PIL import Image
from stored import skipped
from tensorflow_datasets.core.download.checksums import UrlInfo

from galip_keras.datasets import captions as caption_files
from galip_keras.datasets import cub, find, prepare, report
from galip_keras.downloads.sources import SOURCES
from galip_keras.training.config import TrainingConfig
from galip_keras.training.plan import resolve

# Preparing records has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

# In the official order, not in that of the numbers. Classes 1 and 4 are for testing.
IMAGES = {
    3: "002.Laysan_Albatross/Laysan_Albatross_0003_1033.jpg",
    1: "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
    2: "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
    4: "004.Groove_billed_Ani/Groove_Billed_Ani_0068_1538.jpg",
    5: "005.Crested_Auklet/Crested_Auklet_0001_794941.jpg",
}
TRAIN = [IMAGES[3], IMAGES[2], IMAGES[5]]
TEST = [IMAGES[1], IMAGES[4]]
STEMS = [name.removesuffix(".jpg") for name in IMAGES.values()]

ATTRIBUTES = """\
1 has_bill_shape::curved_(up_or_down)
3 has_bill_shape::hooked
11 has_wing_color::brown
21 has_wing_color::black
150 has_bill_length::about_the_same_as_head
203 has_belly_color::orange
220 has_size::small_(5_-_9_in)
259 has_primary_color::olive
"""
LABELS = """\
1 1 0 3 27.708
1 3 1 4 27.708
1 11 1 3 27.708
1 21 1 2 12.5
2 11 1 4 0 0 2.9
2 21 1 3 1.1
2 203 1 4 1.1
2 220 1 4 1.1
2 259 1 3 1.1
3 21 0 3 1.0
"""


def spots(seed, size=(60, 48)):
    """An image of large spots, which survive JPEG compression."""
    small = noise((size[0] // 12, size[1] // 12), seed)
    return small.resize(size, Image.Resampling.BICUBIC)


def cub_files():
    """All members of the archive, by name."""
    root = "CUB_200_2011"
    files = {
        "attributes.txt": ATTRIBUTES,
        f"{root}/README": "about",
        f"{root}/attributes/certainties.txt": "1 not visible\n2 guessing\n",
        f"{root}/attributes/image_attribute_labels.txt": LABELS,
        f"{root}/bounding_boxes.txt": "".join(
            f"{n} 10.0 5.0 30.0 20.0\n" for n in IMAGES
        ),
        f"{root}/classes.txt": "1 001.Black_footed_Albatross\n",
        f"{root}/image_class_labels.txt": "1 1\n",
        f"{root}/train_test_split.txt": "1 0\n",
        f"{root}/images.txt": "".join(f"{n} {name}\n" for n, name in IMAGES.items()),
    }
    for number, name in IMAGES.items():
        files[f"{root}/images/{name}"] = encoded(spots(number))
    return files


WRITE = {
    "tgz": lambda path, files: write_tar(path / "captions.tar.gz", files),
    "zip": lambda path, files: write_zip(path / "captions.zip", files),
    "folder": lambda path, files: write_folder(path / "captions", files),
}


def lines(stem):
    return [f"{stem.split('/')[1]} in words {number}" for number in range(10)]


def text_files(prefix="text/"):
    return {f"{prefix}{stem}.txt": "\n".join(lines(stem)) + "\n" for stem in STEMS}


def tgz(tmp_path, **changes):
    """Write the archive with other content for some members; None leaves one out."""
    files = cub_files()
    for name, content in changes.items():
        name = next(n for n in files if n.endswith(name.replace("__", ".")))
        if content is None:
            del files[name]
        else:
            files[name] = content
    return write_tar(tmp_path / "CUB_200_2011.tgz", files)


def prepared(path, tmp_path, captions=None, allow_bad=False):
    builder = prepare(
        f"cub:{path}", tmp_path / "data", captions=captions, allow_bad=allow_bad
    )
    # No unpacked file stays.
    assert list((tmp_path / "data" / "downloads" / "extracted").iterdir()) == []
    return builder


def refusal(path, tmp_path, captions=None, error=ValueError):
    return stored.refusal(f"cub:{path}", tmp_path / "data", error, captions=captions)


# The archive


def test_archive(tmp_path):
    builder = prepared(tgz(tmp_path), tmp_path)
    assert set(builder.info.splits) == {"train", "test"}
    assert stored.captions(builder, "train").keys() == set(TRAIN)
    assert stored.captions(builder, "test").keys() == set(TEST)
    assert report(builder) == [cub.NOTE]
    assert (builder.data_path / "left_out.tsv").read_text() == ""
    assert "150 species" in builder.info.description


@pytest.mark.parametrize("below", ["", "CUB_200_2011"])
def test_folder(tmp_path, below):
    folder = write_folder(tmp_path / "cub", cub_files())
    builder = prepared(folder / below, tmp_path)
    assert stored.captions(builder, "train").keys() == set(TRAIN)
    assert stored.captions(builder, "test")[IMAGES[1]][1].endswith(
        "with brown wings and a hooked beak"
    )


def test_attributes_inside_the_folder(tmp_path):
    files = cub_files()
    files["CUB_200_2011/attributes/attributes.txt"] = files.pop("attributes.txt")
    path = write_tar(tmp_path / "CUB_200_2011.tgz", files)
    builder = prepared(path, tmp_path)
    assert "brown wings" in stored.captions(builder, "test")[IMAGES[1]][1]


def test_test_classes():
    assert len(cub.TEST_CLASSES) == 50
    assert min(cub.TEST_CLASSES) == 1
    assert max(cub.TEST_CLASSES) == 197


def test_official_order(tmp_path):
    builder = find(
        f"cub:{write_folder(tmp_path / 'cub', cub_files())}", tmp_path / "data"
    )
    splits = builder._splits(None, {})
    assert [record.name for record in splits["train"]] == TRAIN
    assert [record.name for record in splits["test"]] == TEST


@pytest.mark.parametrize(
    "box",
    [(10.0, 5.0, 30.0, 20.0), (100.0, 80.0, 30.0, 38.0), (2.0, 1.0, 41.0, 33.0)],
    ids=["inside", "over the right and lower edge", "over the left and upper edge"],
)
def test_crop_to_the_box(tmp_path, box):
    image = spots(0, (144, 120))
    boxes = dict.fromkeys(IMAGES, "1 1 40 40") | {3: " ".join(map(str, box))}
    path = tgz(
        tmp_path,
        bounding_boxes__txt="".join(f"{n} {text}\n" for n, text in boxes.items()),
        Laysan_Albatross_0003_1033__jpg=encoded(image),
    )
    found = stored.examples(prepared(path, tmp_path))[IMAGES[3]]["image"]

    x, y, width, height = box
    pixels = decoded(encoded(image))
    reach = int(0.75 * max(width, height))
    center_x, center_y = int(x + width / 2), int(y + height / 2)
    rows = slice(max(0, center_y - reach), center_y + reach)
    columns = slice(max(0, center_x - reach), center_x + reach)
    expected = Image.fromarray(pixels[rows, columns])
    scale = 304 / min(expected.size)
    size = [int(side * scale) for side in expected.size]
    expected = np.asarray(expected.resize(size, Image.Resampling.BILINEAR), "float32")
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2


# Captions made from attributes


def test_captions_from_attributes(tmp_path):
    builder = prepared(tgz(tmp_path), tmp_path)
    train = stored.captions(builder, "train")
    # Only the name of this bird is known.
    assert train[IMAGES[3]] == ["a Laysan Albatross"]
    # The first line about this bird has two extra columns.
    assert train[IMAGES[2]] == [
        "a Laysan Albatross",
        "a small olive bird",
        "a Laysan Albatross with brown and black wings and an orange belly",
        "this small olive bird has an orange belly",
        "a small olive bird with brown and black wings and an orange belly",
    ]
    # The annotators were sure of brown wings, guessed black and saw no curved beak.
    assert stored.captions(builder, "test")[IMAGES[1]] == [
        "a Black footed Albatross",
        "a Black footed Albatross with brown wings and a hooked beak",
        "this bird has a hooked beak",
        "a bird with brown wings and a hooked beak",
    ]


def test_note_says_where_captions_come_from(tmp_path):
    builder = prepared(tgz(tmp_path), tmp_path)
    note = builder.info.metadata["note"]
    assert "not those of the paper" in note
    assert "Reed et al." in note
    assert "`captions`" in note
    assert "\n" not in note


def test_captions_of_the_paper(tmp_path, web, monkeypatch):
    files = text_files("birds/text/")
    web.files[SOURCES["birds_metadata.zip"].drive_id] = zip_bytes(files)
    path = tgz(tmp_path)
    builder = prepared(path, tmp_path, captions="paper")
    again = prepared(path, tmp_path, captions=write_zip(tmp_path / "a.zip", files))
    assert stored.captions(builder, "train") == stored.captions(again, "train")
    assert report(builder) == []
    # A relative path of that name is another matter than the word.
    config = resolve(
        TrainingConfig(f"cub:{path}", preset="galip_tiny", captions="paper")
    )
    assert config.captions == "paper"
    assert prepared(path, tmp_path, captions=config.captions).name == builder.name


def test_without_attributes_only_the_name_remains(tmp_path):
    builder = prepared(tgz(tmp_path, image_attribute_labels__txt=None), tmp_path)
    assert stored.captions(builder, "test")[IMAGES[4]] == ["a Groove billed Ani"]


def test_describe():
    assert caption_files.describe("European Goldfinch", {}) == ["a European Goldfinch"]
    seen = {
        "primary_color": ["black", "white", "red", "blue"],
        "bill_length": ["shorter_than_head"],
        "bill_shape": ["all-purpose", "cone"],
        "bill_color": ["black"],
        "head_pattern": ["malar", "crested"],
        "eye_color": ["black"],
    }
    described = caption_files.describe("American Redstart", seen)
    assert described[:3] == [
        "an American Redstart",
        "a black, white and red bird",
        "an American Redstart with a short black cone-shaped beak and a crested head",
    ]
    assert caption_files.describe("American Redstart", seen) == described


# Captions of Reed et al.


@pytest.mark.parametrize("kind", ["tgz", "zip", "folder"])
@pytest.mark.parametrize("prefix", ["text/", "birds/text/", "cvpr2016_cub/text_c10/"])
def test_captions_of_text_files(tmp_path, kind, prefix):
    files = {**text_files(prefix), f"{prefix}001.Black_footed_Albatross.h5": b"\0"}
    path = WRITE[kind](tmp_path, files)
    builder = prepared(tgz(tmp_path), tmp_path, path)
    found = {**stored.captions(builder, "train"), **stored.captions(builder, "test")}
    assert found == {f"{stem}.jpg": lines(stem) for stem in STEMS}
    assert stored.captions(builder, "test").keys() == set(TEST)
    assert builder.info.metadata["note"] == ""
    assert report(builder) == []


def test_a_zip_with_the_separators_of_windows(tmp_path):
    files = {name.replace("/", "\\"): text for name, text in text_files().items()}
    path = write_zip(tmp_path / "text.zip", files)
    builder = prepared(tgz(tmp_path), tmp_path, path)
    assert report(builder) == []


# Unlike the official split, these lists divide a class.
LISTED = {"train": [STEMS[0], STEMS[1], STEMS[3]], "test": [STEMS[2], STEMS[4]]}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", ["tgz", "zip", "folder"])
@pytest.mark.parametrize("nested", [False, True])
def test_birds_metadata(tmp_path, kind, protocol, nested):
    files = {
        f"birds/{split}/filenames.pickle": pickle.dumps(stems, protocol)
        for split, stems in LISTED.items()
    }
    files["birds/train/char-CNN-RNN-embeddings.pickle"] = malicious(tmp_path / "no")
    files |= (
        {"birds/text.zip": zip_bytes(text_files())}
        if nested
        else text_files("birds/text/")
    )
    builder = prepared(tgz(tmp_path), tmp_path, WRITE[kind](tmp_path, files))
    for split, stems in LISTED.items():
        expected = {f"{stem}.jpg": lines(stem) for stem in stems}
        assert stored.captions(builder, split) == expected
    assert report(builder) == []


def test_python_2_pickle():
    # As Python 2 writes lists of its two types of strings.
    data = b"(lp0\nS'001.A/A_1'\np1\naV001.A/A_2\np2\na."
    assert caption_files.list_of_strings(data, "x") == ["001.A/A_1", "001.A/A_2"]
    data = b"\x80\x02]q\x00(U\x09001.A/A_1q\x01X\x09\x00\x00\x00001.A/A_2q\x02e."
    assert caption_files.list_of_strings(data, "x") == ["001.A/A_1", "001.A/A_2"]


def test_lists_of_classes(tmp_path):
    files = text_files() | {
        "trainvalclasses.txt": "001.Black_footed_Albatross\n004.Groove_billed_Ani\n",
        "trainclasses.txt": "001.Black_footed_Albatross\n",
        "testclasses.txt": "002.Laysan_Albatross\n",
    }
    path = write_zip(tmp_path / "captions.zip", files)
    builder = prepared(tgz(tmp_path), tmp_path, path, allow_bad=True)
    assert stored.captions(builder, "train").keys() == {IMAGES[1], IMAGES[4]}
    assert stored.captions(builder, "test").keys() == {IMAGES[2], IMAGES[3]}
    assert skipped(builder) == {"in no split": [IMAGES[5]]}


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def malicious(path):
    return pickle.dumps([STEMS[0], Malice(path)], 2)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_runs_nothing(tmp_path, protocol):
    data = pickle.dumps([STEMS[0], Malice(tmp_path / "ran")], protocol)
    files = text_files() | {"birds/train/filenames.pickle": data}
    path = write_zip(tmp_path / "birds.zip", files)
    line = refusal(tgz(tmp_path), tmp_path, path)
    assert line.startswith(
        f"{path}: birds/train/filenames.pickle is not a pickle of a list"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"no pickle",
        b"",
        pickle.dumps(["a"], 2)[:-2],
        *(
            pickle.dumps(x, 2)
            for x in ({"a": "b"}, [1], [b"a"], ["a", None], [["a"]], "a", ("a",))
        ),
    ],
)
def test_other_pickles(data):
    with pytest.raises(ValueError, match="x is not a pickle of a list of strings"):
        caption_files.list_of_strings(data, "x")


def test_images_without_captions_are_skipped(tmp_path):
    files = text_files()
    del files[f"text/{STEMS[0]}.txt"]
    files[f"text/{STEMS[2]}.txt"] = " \n\n"
    files[f"text/{STEMS[3]}.txt"] = "ein Vögelchen".encode("latin-1")
    files[f"text/{STEMS[4]}.txt"] = "\ufeffa bird\ufffd\ufffds beak \r\n\nsmall\n"
    path = write_folder(tmp_path / "captions", files)
    assert "2 of 3 images in" in refusal(tgz(tmp_path), tmp_path, path)
    builder = prepared(tgz(tmp_path), tmp_path, path, allow_bad=True)
    assert stored.captions(builder, "train") == {IMAGES[5]: ["a bird s beak", "small"]}
    assert skipped(builder) == {
        "no caption": [IMAGES[3]],
        "blank caption": [IMAGES[2]],
        "caption is not UTF-8": [IMAGES[4]],
    }
    (line,) = report(builder)
    assert line.startswith("skipped 3 images: ")
    written = (builder.data_path / "left_out.tsv").read_text()
    assert f"no caption\t{IMAGES[3]}\n" in written


def test_listed_images_that_are_not_there(tmp_path):
    files = text_files() | {
        f"birds/{split}/filenames.pickle": pickle.dumps([*stems, f"9.X/{split}"], 2)
        for split, stems in LISTED.items()
    }
    path = write_zip(tmp_path / "birds.zip", files)
    builder = prepared(tgz(tmp_path), tmp_path, path, allow_bad=True)
    assert skipped(builder) == {"no image": ["9.X/train", "9.X/test"]}


def test_captions_that_cannot_be_used(tmp_path):
    path = tgz(tmp_path)
    line = refusal(path, tmp_path, tmp_path / "nothing.zip", FileNotFoundError)
    assert "nothing.zip does not exist" in line
    empty = write_zip(tmp_path / "empty.zip", {"readme.txt": "hello"})
    assert f"{empty} has no captions" in refusal(path, tmp_path, empty)
    (tmp_path / "text.zip").write_text("no archive")
    assert "text.zip is not a zip or tar" in refusal(
        path, tmp_path, tmp_path / "text.zip"
    )
    cut = write_tar(tmp_path / "cut.tgz", text_files())
    os.truncate(cut, cut.stat().st_size // 2)
    assert f"{cut} is damaged or truncated" in refusal(path, tmp_path, cut)
    nested = write_zip(tmp_path / "nested.zip", {"birds/text.zip": b"PK no zip"})
    assert f"{nested} is damaged or truncated" in refusal(path, tmp_path, nested)
    one = text_files() | {"train/filenames.pickle": pickle.dumps(STEMS, 2)}
    one = write_zip(tmp_path / "one.zip", one)
    assert "has no filenames.pickle for testing" in refusal(path, tmp_path, one)
    both = text_files() | {
        f"{split}/filenames.pickle": pickle.dumps(STEMS[:1], 2) for split in LISTED
    }
    both = write_zip(tmp_path / "both.zip", both)
    assert f"lists {STEMS[0]} for both training and" in refusal(path, tmp_path, both)


# Archives that cannot be used


def test_no_archive(tmp_path):
    path = tmp_path / "CUB_200_2011.tgz"
    line = refusal(path, tmp_path, error=FileNotFoundError)
    assert line == f"{path} does not exist: give CUB_200_2011.tgz or its folder"
    path.write_bytes(b"\x1f\x8b no archive")
    assert f"{path} is " in refusal(path, tmp_path)
    path.write_bytes(b"no archive")
    assert f"{path} is not a zip or tar archive" in refusal(path, tmp_path)
    write_tar(path, {"other/a.txt": "a"})
    assert f"{path} has no images.txt" in refusal(path, tmp_path, error=OSError)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert f"{folder} has no " in refusal(folder, tmp_path, error=OSError)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_archive(tmp_path, share):
    path = tgz(tmp_path)
    os.truncate(path, int(share * path.stat().st_size))
    line = refusal(path, tmp_path)
    assert line == f"{path} is damaged or truncated: fetch it again"
    assert list((tmp_path / "data" / "downloads" / "extracted").iterdir()) == []


@pytest.mark.parametrize("name", ["images__txt", "bounding_boxes__txt"])
def test_missing_tables(tmp_path, name):
    path = tgz(tmp_path, **{name: None})
    line = refusal(path, tmp_path, error=FileNotFoundError)
    assert f"{path} has no {name.replace('__', '.')}: give" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "images__txt",
            "1 001.A/a.jpg\n2\n",
            "line 2 does not have 2 columns",
        ),
        (
            "images__txt",
            "\n1 ../a.jpg\n",
            "images.txt, line 2 is not a number",
        ),
        (
            "images__txt",
            "1 /etc/passwd.jpg\n",
            "images.txt, line 1 is not a number",
        ),
        ("images__txt", "1 1.A/a.jpg\n1 1.A/b.jpg\n", "images.txt, line 2 repeats"),
        ("images__txt", b"1 1.A/\xe5.jpg\n", "images.txt is not UTF-8"),
        ("images__txt", "", "has no images for training"),
        ("bounding_boxes__txt", "1 2 3 4\n", "line 1 does not have 5 columns"),
        ("bounding_boxes__txt", "1 2 3 4 x\n", "line 1 is not five numbers"),
        ("bounding_boxes__txt", "1 2 3 4 nan\n", "line 1 is not five numbers"),
        ("attribute_labels__txt", "1 1 1\n", "labels.txt, line 1 does not have 4 col"),
        (
            "attributes__txt",
            "1 blue\n",
            "attributes.txt, line 1 is not a number",
        ),
    ],
)
def test_malformed_tables(tmp_path, name, content, message):
    path = tgz(tmp_path, **{name: content})
    line = refusal(path, tmp_path)
    assert line.startswith(str(path))
    assert message in line


def test_bad_images_are_skipped(tmp_path):
    boxes = "".join(f"{number} 10 5 30 20\n" for number in IMAGES if number != 2)
    path = tgz(
        tmp_path,
        bounding_boxes__txt=boxes,
        Laysan_Albatross_0003_1033__jpg=b"no image",
        Groove_Billed_Ani_0068_1538__jpg=None,
    )
    assert "2 of 3 images in" in refusal(path, tmp_path)
    builder = prepared(path, tmp_path, allow_bad=True)
    assert skipped(builder) == {
        "cannot be read": [IMAGES[3]],
        "no box": [IMAGES[2]],
        "no image": [IMAGES[4]],
    }


def test_nothing_is_written_outside(tmp_path):
    evil = {
        "../../../../evil.txt": "a",
        "CUB_200_2011/images/../../../../../evil.jpg": b"a",
        "CUB_200_2011/images/001.A/..\\..\\evil.jpg": b"a",
        "/tmp/images/1.evil/evil.jpg": b"a",
    }
    path = write_tar(tmp_path / "CUB_200_2011.tgz", cub_files() | evil)
    with (
        tarfile.open(path) as archive,
        tarfile.open(tmp_path / "b.tgz", "w:gz") as copy,
    ):
        for member in archive:
            copy.addfile(member, archive.extractfile(member))
        link = tarfile.TarInfo("CUB_200_2011/images/005.Crested_Auklet/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        copy.addfile(link)
    builder = prepared(tmp_path / "b.tgz", tmp_path)
    assert report(builder) == [cub.NOTE]
    assert [p for p in tmp_path.rglob("*") if "evil" in p.name] == []


# Which records belong to which archives


def name(path, tmp_path, **options):
    return find(f"cub:{path}", tmp_path / "data", **options).builder_config.name


def test_the_official_archive_needs_no_network_later(tmp_path, monkeypatch):
    path = tgz(tmp_path)
    info = UrlInfo(tfds.core.utils.Size(path.stat().st_size), "0" * 64, path.name)
    monkeypatch.setattr(cub.Cub, "url_infos", {cub.URL: info})
    first = prepared(path, tmp_path)
    path.unlink()
    again = prepare("cub", tmp_path / "data")
    assert again.data_path == first.data_path
    assert stored.captions(again, "train").keys() == set(TRAIN)


def test_the_real_size_is_official(tmp_path):
    path = tmp_path / "any.tgz"
    path.touch()
    os.truncate(path, 1150585339)
    official = find("cub", tmp_path / "data").builder_config.name
    assert name(path, tmp_path) == official == "official-attributes"


def test_other_content_has_other_records(tmp_path):
    path = tgz(tmp_path)
    text = write_zip(tmp_path / "text.zip", text_files())
    names = [name(path, tmp_path), name(path, tmp_path, captions=text)]
    assert names == [name(path, tmp_path), name(path, tmp_path, captions=text)]
    os.utime(path, (1, 1))
    names.append(name(path, tmp_path))
    folder = write_folder(tmp_path / "cub", cub_files())
    names.append(name(folder, tmp_path))
    (folder / "CUB_200_2011" / "images.txt").write_text("1 1.A/a.jpg\n")
    names.append(name(folder, tmp_path))
    write_zip(text, text_files("birds/text/"))
    names.append(name(path, tmp_path, captions=text))
    words = write_folder(tmp_path / "captions", text_files())
    names.append(name(path, tmp_path, captions=words))
    (words / "text" / f"{STEMS[0]}.txt").write_text("other")
    names.append(name(path, tmp_path, captions=words))
    assert len(set(names)) == len(names)


def test_records_are_made_once(tmp_path):
    path = tgz(tmp_path)
    first = prepared(path, tmp_path)
    # Preparing again would write new files, with other inodes.
    files = [Path(file) for file in first.data_path.iterdir()]
    before = [file.stat().st_ino for file in files]
    prepared(path, tmp_path)
    assert [file.stat().st_ino for file in files] == before


# Downloads


def published(monkeypatch, url, data):
    checksum = hashlib.sha256(data).hexdigest()
    info = UrlInfo(tfds.core.utils.Size(len(data)), checksum, "CUB_200_2011.tgz")
    monkeypatch.setattr(cub.Cub, "url_infos", {url: info})


def test_download(tmp_path, server, monkeypatch):
    path = tgz(tmp_path / "served")
    published(monkeypatch, f"{server}/CUB_200_2011.tgz", path.read_bytes())
    builder = prepare("cub", tmp_path / "data")
    assert stored.captions(builder, "train").keys() == set(TRAIN)
    # Other captions need no other download.
    path.unlink()
    text = write_zip(tmp_path / "text.zip", text_files())
    builder = prepare("cub", tmp_path / "data", captions=text)
    assert stored.captions(builder, "train")[IMAGES[3]] == lines(STEMS[0])


def test_wrong_checksum(tmp_path, server, monkeypatch):
    path = tgz(tmp_path / "served")
    published(monkeypatch, f"{server}/CUB_200_2011.tgz", path.read_bytes()[::-1])
    with pytest.raises(OSError, match="with a wrong checksum: try again, or") as info:
        prepare("cub", tmp_path / "data")
    assert str(info.value).startswith(f"{server}/CUB_200_2011.tgz arrived")
    assert "\n" not in str(info.value)


def test_a_download_that_no_longer_exists(tmp_path, server, monkeypatch):
    published(monkeypatch, f"{server}/CUB_200_2011.tgz", b"")
    with pytest.raises(OSError, match=r"HTTP code: 404.*cub:PATH as `dataset`") as info:
        prepare("cub", tmp_path / "data")
    assert "\n" not in str(info.value)


def test_no_network(tmp_path, monkeypatch, capfd):
    # A name that never resolves, by RFC 2606.
    url = "https://data.caltech.invalid/CUB_200_2011.tgz"
    published(monkeypatch, url, b"")
    begin = time.monotonic()
    with pytest.raises(OSError, match="no connection") as info:
        prepare("cub", tmp_path / "data")
    assert time.monotonic() - begin < 20
    assert str(info.value).startswith(f"cannot fetch {url}")
    assert str(info.value).endswith("give cub:PATH as `dataset`")
    assert "\n" not in str(info.value)
    assert capfd.readouterr().out == ""


@slow_on_torch
def test_training_on_it(train, tmp_path):
    archive = tgz(tmp_path)
    assert f"Data: {cub.NOTE}\n" in train(f"cub:{archive}")


@slow_on_torch
def test_training_on_it_with_captions(train, tmp_path):
    archive = tgz(tmp_path)
    captions = WRITE["zip"](tmp_path, text_files("birds/text/"))
    assert cub.NOTE not in train(f"cub:{archive}", "--captions", captions)
