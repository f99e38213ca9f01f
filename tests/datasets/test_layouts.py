"""Folders as other tools and systems write them, and images without captions."""

import json
import sys
import unicodedata

import pytest
import stored
from drawn import noise
from PIL import Image
from stored import captions, skipped

from galip_keras.datasets import prepare, report

# Preparing records has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

DECOMPOSED = unicodedata.normalize("NFD", "café röt.png")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def no_packages(monkeypatch):
    """Hide the packages that are optional."""
    for module in ("pillow_heif", "pillow_jxl", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)


def write(folder, *images, **texts):
    """Write images, and other files: `a_b="x"` writes x into a.b."""
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(folder / name, "JPEG")
    for name, text in texts.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")


def prepared(folder, **options):
    return prepare(f"folder:{folder}", folder.parent / "records", **options)


def refusal(folder, **options):
    return stored.refusal(
        f"folder:{folder}", folder.parent / "records", ValueError, **options
    )


def parquet(path, **columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)


# Names


@pytest.mark.parametrize(
    ("disk", "table"),
    [
        (DECOMPOSED, "café röt.png"),
        ("café röt.png", DECOMPOSED),
        ("sub/a.png", "sub\\a.png"),
        ("sub/a.png", ".\\sub\\a.png"),
        ("a\\b.png", "a\\b.png"),
        ("a.JPG", "a.jpg"),
        ("a.png", " a.png "),
        ("a.png", "sub/../a.png"),
        ("sub/a.png", "{folder}/sub/a.png"),
        ("sub/a.png", "{link}/sub/a.png"),
    ],
)
def test_a_name_in_another_spelling(folder, tmp_path, disk, table):
    write(folder, disk)
    (tmp_path / "link").symlink_to(folder)
    table = table.format(folder=folder, link=tmp_path / "link")
    write(folder, metadata_jsonl=json.dumps({"file_name": table, "text": "a bird"}))
    builder = prepared(folder)
    assert captions(builder) == {disk: ["a bird"]}
    assert report(builder) == []


def test_a_name_that_is_exactly_right_comes_first(folder):
    write(folder, "a.png", "A.PNG", "b.png", "B.PNG")
    if len(list(folder.iterdir())) < 4:
        pytest.skip("this file system does not tell upper case from lower case")
    write(folder, metadata_csv="file_name,text\na.png,a\nA.PNG,A\nb.PNG,b\n")
    builder = prepared(folder, allow_bad=True)
    assert captions(builder) == {"a.png": ["a"], "A.PNG": ["A"]}
    assert skipped(builder) == {"no image": ["b.PNG"], "no caption": ["B.PNG", "b.png"]}


@pytest.mark.parametrize("name", ["/elsewhere/a.png", "C:\\a.png", "../a.png"])
def test_files_outside_the_folder(folder, name):
    write(folder, "b.png", metadata_csv=f"file_name,text\n{name},a\nb.png,b\n")
    builder = prepared(folder, allow_bad=True)
    assert skipped(builder) == {"outside the folder": [name]}


def test_texts_by_a_name_in_another_form(folder):
    write(folder, DECOMPOSED)
    (folder / "café röt.txt").write_text("a bird")
    assert captions(prepared(folder)) == {DECOMPOSED: ["a bird"]}


# What is left out


def test_notes_are_no_lost_images(folder):
    for number in range(24):
        write(folder, f"{number}.png", **{f"{number}_txt": "a bird"})
    write(folder, LICENSE_txt="MIT", README_txt="Birds.")
    builder = prepared(folder)
    assert skipped(builder) == {"no image": ["LICENSE.txt", "README.txt"]}
    write(folder, **{f"lost{number}_txt": "a bird" for number in range(10)})
    assert "12 of 36 images" in refusal(folder)


def test_an_empty_row_is_no_lost_image(folder):
    write(folder, "a.png", metadata_csv="file_name,text\na.png,a bird\n\n,\n")
    assert skipped(prepared(folder)) == {"empty row": ["metadata.csv, line 4"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"file_name": "a.png", "text": 42}', "caption is not text"),
        ('{"file_name": "a.png", "text": [42]}', "caption is not text"),
        ('{"file_name": "a.png", "text": {"a": "b"}}', "caption is not text"),
        ('{"file_name": "a.png", "text": NaN}', "blank caption"),
        ('{"file_name": "a.png", "text": [null]}', "blank caption"),
        ('{"file_name": "a.png"}', "blank caption"),
        ('{"file_name": 42, "text": "a"}', "file name is not text"),
        ('{"file_name": null, "text": "a"}', "no file name"),
        ('{"text": "a"}', "no file name"),
    ],
)
def test_one_row_that_cannot_be_used(folder, row, reason):
    write(folder, "good.png", "a.png")
    good = '{"file_name": "good.png", "text": ["a", null, 42, NaN, "b"]}'
    write(folder, metadata_jsonl=f"{good}\n{row}\n")
    assert reason in refusal(folder)
    builder = prepared(folder, allow_bad=True)
    assert captions(builder) == {"good.png": ["a", "b"]}
    name = "a.png" if "a.png" in row else "metadata.jsonl, line 2"
    assert skipped(builder)[reason] == [name]


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "header",
    ["file_name,text", "file_name , text", "File Name,Caption", "Image,prompt"],
)
def test_delimiters_and_headers(folder, delimiter, header):
    write(folder, "a.png")
    header = header.replace(",", delimiter)
    caption = '"a bird, small; a|b"'
    write(folder, metadata_csv=f"{header}\na.png{delimiter}{caption}{delimiter}\n")
    assert captions(prepared(folder)) == {"a.png": ["a bird, small; a|b"]}


@pytest.mark.parametrize("first", ["sep=;\n", "\n", ";\n"])
def test_lines_before_the_header(folder, first):
    write(folder, "a.png", metadata_csv=f"{first}file_name;text\na.png;a bird\nb;c;d")
    assert "metadata.csv, line 4 has more values" in refusal(folder)
    write(folder, metadata_csv=f"{first}file_name;text\ra.png;a bird\r")
    assert captions(prepared(folder)) == {"a.png": ["a bird"]}


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quote_that_is_never_closed(folder, end):
    rows = "".join(f"{name}.png,a bird\n" for name in range(200))
    write(folder, "a.png", metadata_csv=f'file_name,text\n{rows}a.png,"a bird{end}')
    assert refusal(folder).endswith(
        "metadata.csv, line 202: a quote is opened and never closed"
    )
    write(folder, metadata_csv=f'file_name,text\n\na.png,"a\nred bird"{end}')
    assert captions(prepared(folder)) == {"a.png": ["a\nred bird"]}


def test_utf_16(folder):
    write(folder, "a.png", "b/b.png")
    (folder / "metadata.csv").write_text("file_name\ttext\na.png\tVögel", "utf-16")
    assert captions(prepared(folder, allow_bad=True)) == {"a.png": ["Vögel"]}
    (folder / "metadata.csv").rename(folder / "b" / "metadata.tsv")
    (folder / "a.txt").write_text("ein Vögelchen", "utf-16")
    (folder / "b" / "a.png").write_bytes((folder / "a.png").read_bytes())
    assert captions(prepared(folder, allow_bad=True)) == {
        "a.png": ["ein Vögelchen"],
        "b/a.png": ["Vögel"],
    }


def test_chosen_columns(folder):
    write(folder, "a.png", "b.png")
    rows = [{"text": "a bird", "title": "Sparrow", "file_name": "b.png", "to": "a.png"}]
    write(folder, metadata_jsonl=json.dumps(*rows))
    builders = [
        prepared(folder, allow_bad=True),
        prepared(folder, allow_bad=True, caption_column="title"),
        prepared(folder, allow_bad=True, caption_column="title", image_column="to"),
    ]
    assert [captions(builder) for builder in builders] == [
        {"b.png": ["a bird"]},
        {"b.png": ["Sparrow"]},
        {"a.png": ["Sparrow"]},
    ]
    line = refusal(folder, caption_column="titel")
    assert "has no titel, only text, title, file_name, to: name the column" in line
    assert "`caption_column`" in line


@pytest.mark.extra("parquet", "pyarrow")
@pytest.mark.parametrize("name", ["metadata.parquet", "captions.parquet"])
def test_parquet(folder, name):
    write(folder, "a.png", "b.png")
    parquet(folder / name, other=[1, 2], image=["a.png", "b.png"], prompt=["a", None])
    builder = prepared(folder, allow_bad=True)
    assert captions(builder) == {"a.png": ["a"]}
    assert skipped(builder) == {"blank caption": ["b.png"]}
    line = refusal(folder, image_column="file_names")
    assert "no file_names, only other, image" in line
    (folder / name).write_bytes(b"PAR1")
    assert f"{name} cannot be read as Parquet" in refusal(folder)


@pytest.mark.usefixtures("no_packages")
def test_parquet_without_its_package(folder):
    write(folder, "a.png", metadata_parquet="")
    assert "needs pyarrow: pip install 'galip-keras[parquet]'" in refusal(folder)


def test_tables_in_subfolders(folder):
    write(folder, "a.png", "red/b.png", "red/deep/c.png", "blue/d.png", "e/e.png")
    write(folder, a_txt="a", **{"red/b_txt": "not this"})
    table = "file_name,text\nb.png,b\ndeep/c.png,c\n../e/e.png,e\n"
    (folder / "red" / "metadata.csv").write_text(table)
    (folder / "blue" / "Captions.CSV").write_text("image,caption\nd.png,d\n")
    builder = prepared(folder)
    assert captions(builder) == {
        "a.png": ["a"],
        "red/b.png": ["b"],
        "red/deep/c.png": ["c"],
        "blue/d.png": ["d"],
        "e/e.png": ["e"],
    }
    assert report(builder) == []


def test_texts_come_before_a_table_called_captions(folder):
    write(folder, "a.png", a_txt="a", captions_csv="file_name,text\na.png,b\n")
    assert captions(prepared(folder)) == {"a.png": ["a"]}
    assert captions(prepared(folder, caption_column="text")) == {"a.png": ["b"]}


@pytest.mark.parametrize("text", ["a.caption", "a.jpg.txt", "a.TXT", "a.jpg.caption"])
def test_texts_beside_images(folder, text):
    write(folder, "a.jpg")
    (folder / text).write_text("a bird\na red bird\n")
    assert captions(prepared(folder)) == {"a.jpg": ["a bird", "a red bird"]}


def test_the_text_with_the_name_of_the_whole_file_comes_first(folder):
    write(folder, "a.jpg", "a.png", a_txt="a", a_jpg_txt="jpg", a_caption="no")
    builder = prepared(folder)
    assert captions(builder) == {"a.jpg": ["jpg"], "a.png": ["a"]}
    assert report(builder) == []


@pytest.mark.parametrize("names", [("training", "testing"), ("Train", "eval")])
def test_names_of_splits(folder, names):
    for name in names:
        write(folder, f"{name}/a.png", **{f"{name}/a_txt": "a bird"})
    assert set(prepared(folder).info.splits) == {"train", "test"}


def test_an_error_names_what_was_found(folder):
    write(folder, "a.png", birds_csv="image,text\na.png,a", notes_json="{}")
    line = refusal(folder)
    assert "add metadata.jsonl, metadata.csv or a NAME.txt" in line
    assert "`caption` or `caption_from`" in line
    assert line.endswith("(found birds.csv, notes.json)")
    (folder / "a.png").unlink()
    assert refusal(folder).endswith("captions (found birds.csv, notes.json)")
    write(folder, "a.png", a_txt="a")
    assert "has no table such as metadata.csv" in refusal(folder, caption_column="x")


# Kinds of images


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".pjpeg", ".avif", ".apng"])
def test_kinds_of_images(folder, suffix):
    kind = Image.registered_extensions().get(suffix, "JPEG")
    noise((20, 20)).save(folder / f"a{suffix}", kind)
    write(folder, a_txt="a bird")
    assert captions(prepared(folder)) == {f"a{suffix}": ["a bird"]}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.heic", b"\0\0\0\x1cftypheic", "HEIC needs pillow-heif (pip install"),
        ("a.jpg", b"\0\0\0\x1cftypmif1", "HEIC needs pillow-heif (pip install"),
        ("a.jxl", b"\xff\n\xe8\xb0", "JPEG XL needs pillow-jxl-plugin (pip install"),
        ("a.svg", b"<svg/>", "not a kind of image that can be read: a.svg"),
    ],
)
@pytest.mark.parametrize("layout", ["a.txt", "metadata.csv"])
def test_kinds_of_images_that_are_not_read(
    folder, monkeypatch, layout, name, content, reason
):
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    write(folder, "b.png", b_txt="b")
    (folder / name).write_bytes(content)
    text = f"file_name,text\nb.png,b\n{name},a\n" if "csv" in layout else "a"
    (folder / layout).write_text(text)
    line = refusal(folder)
    assert reason in line
    assert "no image" not in line


# Images without captions


def test_one_caption_for_all(folder):
    write(folder, "a.png", "b/b.png", a_txt="a fish")
    builder = prepared(folder, caption="a photo of a bird")
    assert captions(builder) == {
        "a.png": ["a photo of a bird"],
        "b/b.png": ["a photo of a bird"],
    }
    other = prepared(folder, caption="a drawing of a bird")
    assert captions(other)["a.png"] == ["a drawing of a bird"]
    assert other.data_path != builder.data_path


def test_captions_from_folders(folder):
    write(folder, "train/red_bird/a.png", "train/x/blue bird/b.png", "train/c.png")
    write(folder, "test/red_bird/d.png")
    builder = prepared(folder, caption_from="folder", allow_bad=True)
    assert captions(builder) == {
        "train/red_bird/a.png": ["red bird"],
        "train/x/blue bird/b.png": ["blue bird"],
    }
    assert captions(builder, "test") == {"test/red_bird/d.png": ["red bird"]}
    assert skipped(builder) == {"in no subfolder": ["train/c.png"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caption": " "}, "`caption` is blank"),
        ({"caption": ""}, "`caption` is blank"),
        ({"caption_from": "file"}, "`caption_from` must be folder"),
        ({"caption": "a", "caption_from": "folder"}, "exclude each other"),
        ({"caption": "a", "caption_column": "b"}, "exclude each other"),
    ],
)
def test_options_that_make_no_sense(folder, options, message):
    write(folder, "a.png", a_txt="a")
    assert message in refusal(folder, **options)


@pytest.mark.parametrize("dataset", ["toybirds", "hf:a/b", "cub"])
def test_options_of_folders_alone(tmp_path, dataset):
    with pytest.raises(ValueError, match="leave out `caption`"):
        prepare(dataset, tmp_path, caption="a bird")
