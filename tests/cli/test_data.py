"""`galip data`, and training on what it prepares."""

import json
from pathlib import Path

import pytest
from drawn import draw_circles
from PIL import Image

from galip_cli.main import main
from galip_keras.datasets import DATASETS
from galip_keras.downloads.fetch import path_of

pytestmark = pytest.mark.backend("tensorflow")


@pytest.fixture
def images(tmp_path):
    return draw_circles(tmp_path / "circles")


def test_list_names_all_and_says_what_is_prepared(galip, tmp_path, images):
    code, output, _ = galip("data", "list", "--data-dir", tmp_path, "--json")
    rows = json.loads(output)
    assert code == 0
    assert rows.keys() == DATASETS.keys()
    assert not any(row["prepared"] for row in rows.values())

    galip("data", "prepare", f"folder:{images}", "--data-dir", tmp_path)
    _, output, _ = galip("data", "list", "--data-dir", tmp_path, "--json")
    prepared = {name: row["prepared"] for name, row in json.loads(output).items()}
    (path,) = prepared.pop("folder")
    assert (Path(path) / "dataset_info.json").exists()
    assert not any(prepared.values())

    code, output, _ = galip("data", "list", "--data-dir", tmp_path)
    assert code == 0
    output = " ".join(output.split())
    for name, row in rows.items():
        assert f"{name} {row['description']}" in output
    assert f"prepared in {path}" in output


def test_list_says_which_captions_can_be_fetched(galip, tmp_path, home):
    path = path_of("birds_metadata.zip")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK")
    _, output, _ = galip("data", "list", "--data-dir", tmp_path, "--json")
    papers = {x: row["paper"] for x, row in json.loads(output).items() if row["paper"]}
    assert {x: paper["here"] for x, paper in papers.items()} == {
        "cub": True,
        "coco": False,
    }
    assert papers["coco"]["license"].startswith("CC BY-NC-SA 4.0")
    output = " ".join(galip("data", "list", "--data-dir", tmp_path)[1].split())
    assert "--captions paper: birds_metadata.zip, size unknown; CC BY-NC-SA" in output
    assert output.count("tobran/GALIP); here") == 1
    assert output.count("tobran/GALIP); fetched on first use") == 1


@pytest.mark.usefixtures("less_to_compile")
def test_prepare_inspect_and_train(galip, tmp_path, images):
    data = (f"folder:{images}", "--data-dir", tmp_path / "data")
    code, output, errors = galip("data", "inspect", *data)
    assert (code, output) == (1, "")
    assert "is not prepared: run galip data prepare" in errors

    code, output, _ = galip("data", "prepare", *data, "--num-workers", 1)
    assert code == 0
    records = Path(output.strip())
    assert (records / "left_out.tsv").read_text() == ""

    sheet = tmp_path / "sheet.png"
    code, output, _ = galip("data", "inspect", *data, "--out", sheet, "--json")
    facts = json.loads(output)
    assert code == 0
    assert facts["records"] == str(records)
    assert facts["pictures"] == {"train": 6}
    assert facts["report"] == []
    assert Image.open(sheet).size[0] > 400
    code, output, _ = galip("data", "inspect", *data, "--out", sheet)
    assert "images    6 train\n" in output

    code, output, _ = galip(
        "train", "--dataset", *data, "--preset", "galip_tiny", "--steps", 1,
        "--batch-size", 2, "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / "run" / "preset").is_dir()


def test_left_out_images_are_an_error_unless_allowed(galip, tmp_path, images):
    (images / "broken.png").write_bytes(b"\x89PNG")
    (images / "broken.txt").write_text("a broken circle")
    data = (f"folder:{images}", "--data-dir", tmp_path / "data")
    code, output, errors = galip("data", "prepare", *data)
    assert (code, output) == (1, "")
    # Progress bars may come before it.
    error = errors.splitlines()[-1]
    assert error.startswith("Error: 1 of 7 images")
    assert "cannot be read: broken.png" in error
    assert "--allow-bad" in error
    # No records stay.
    assert not list((tmp_path / "data").rglob("*.tfrecord*"))

    code, output, errors = galip("data", "prepare", *data, "--allow-bad")
    assert code == 0
    assert "skipped 1 image: cannot be read: broken.png" in errors
    report = Path(output.strip()) / "left_out.tsv"
    assert report.read_text() == "cannot be read\tbroken.png\n"


def test_captions_as_the_options_say(galip, tmp_path, scorer):
    images = draw_circles(tmp_path / "circles")
    for text in images.glob("*.txt"):
        text.unlink()
    data = (f"folder:{images}", "--data-dir", tmp_path / "data")
    code, output, errors = galip("data", "prepare", *data)
    assert (code, output) == (1, "")
    assert "or give --caption or --caption-from" in errors
    data += ("--caption", "a photo of a circle")
    sheet = ("--out", tmp_path / "sheet.png")
    _, _, errors = galip("data", "inspect", *data, *sheet)
    assert errors.endswith("with the same options.\n")
    code, records, _ = galip("data", "prepare", *data)
    assert code == 0
    code, output, _ = galip("data", "inspect", *data, *sheet)
    assert code == 0
    assert records.strip() in output
    code, output, _ = galip(
        "evaluate", "--images", images, "--dataset", *data, "--scorer", scorer,
        "--metrics", "fid", "--json",
    )  # fmt: skip
    assert code == 0
    code, output, _ = galip(
        "train", "--dataset", *data, "--preset", "galip_tiny", "--dry-run"
    )
    assert code == 0
    assert json.loads(output)["caption"] == "a photo of a circle"
    # None of them prepared another dataset.
    assert len(list(tmp_path.glob("data/folder/*/1.0.0"))) == 1


def test_without_a_subcommand_it_shows_its_help(galip):
    code, output, errors = galip("data")
    assert (code, errors) == (0, "")
    assert "galip data prepare toybirds" in output


def test_debug_works_after_the_subcommand(tmp_path):
    with pytest.raises(ValueError, match="unknown dataset"):
        main(["data", "prepare", "birds", "--data-dir", str(tmp_path), "--debug"])


@pytest.mark.parametrize("name", ["birds", "folder", "cc3m", ""])
def test_one_line_for_an_unusable_name(galip, tmp_path, name):
    code, output, errors = galip("data", "prepare", name, "--data-dir", tmp_path)
    assert (code, output) == (1, "")
    assert errors.startswith("Error: ")
    assert errors.count("\n") == 1
