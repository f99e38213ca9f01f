"""Datasets of other libraries become records, or an error of one line."""

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import stored
import tensorflow_datasets as tfds
from PIL import Image
from stored import is_red, refusal

from galip_keras.datasets import adapters, prepare, report

REPOSITORY = Path(__file__).resolve().parents[2]
EMOJI = REPOSITORY.parent / "shared" / "data" / "fluent_emoji"

# Preparing records has nothing to do with the backend: once is enough.
pytestmark = pytest.mark.backend("tensorflow")

RED = np.full((20, 24, 3), (255, 0, 0), "uint8")


def captions(builder, split="train"):
    """A list of captions, in the order of ids, which count from zero."""
    found = stored.captions(builder, split)
    assert sorted(map(int, found)) == list(range(len(found)))
    return [found[name] for name in sorted(found)]


# tensorflow-datasets


class GalipTestTexts(tfds.core.GeneratorBasedBuilder):
    """A dataset that tensorflow-datasets finds by its registered code."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="birds"),
        tfds.core.BuilderConfig(name="remote"),
        tfds.core.BuilderConfig(name="needy"),
    ]

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(),
                "image/filename": tfds.features.Text(),
                "captions": tfds.features.Sequence(
                    {"id": np.int64, "text": tfds.features.Text()}
                ),
                "objects": tfds.features.Sequence(
                    {"label": tfds.features.ClassLabel(names=["a", "b"])}
                ),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        if self.builder_config.name == "remote":
            raise ConnectionError("no network\nand a long explanation")
        if self.builder_config.name == "needy":
            import galip_nothing  # noqa: F401
        return {
            split: self._generate_examples(split) for split in ("validation", "train")
        }

    def _generate_examples(self, split):
        for number in range(3):
            texts = [f"{split} {number}", "ein Vögelchen"][: number + 1]
            yield (
                number,
                {
                    "image": RED,
                    "image/filename": f"{number}.png",
                    "captions": [{"id": 1, "text": text} for text in texts],
                    "objects": [{"label": "a"}],
                },
            )


def store(data_dir, features, *examples, name="stored", split="train"):
    """Write records that tensorflow-datasets finds in a folder, without code."""

    class Stored(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(examples)

    Stored.name = name
    Stored(data_dir=data_dir).download_and_prepare()


def test_tfds_with_a_config_and_nested_captions(tmp_path):
    builder = prepare("tfds:galip_test_texts/birds", data_dir=tmp_path)
    assert list(builder.info.splits) == ["train", "validation"]
    found = captions(builder)
    assert sorted(texts[0] for texts in found) == ["train 0", "train 1", "train 2"]
    assert sorted(map(len, found)) == [1, 2, 2]
    assert captions(builder, "validation")[0][0].startswith("validation")
    assert is_red(builder)
    (note,) = report(builder)
    assert note == (
        "captions are captions/text of galip_test_texts/birds/1.0.0 of "
        "tensorflow-datasets"
    )


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ("image,image/filename", "0.png"),
        (",image/filename", "0.png"),
        ("image,objects.label", "a photo of a a"),
        (",captions.text", "train 0"),
        ("image,", "train 0"),
    ],
)
def test_tfds_keys(tmp_path, keys, first):
    builder = prepare(f"tfds:galip_test_texts/birds:1.0.0:{keys}", tmp_path)
    assert min(captions(builder))[0] == first


def test_tfds_labels_become_captions(tmp_path):
    label = tfds.features.ClassLabel(names=["cat", "house_sparrow"])
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": label,
        "file": tfds.features.Text(),
    }
    store(
        tmp_path,
        features,
        {"image": RED, "label": 1, "file": "a.jpg"},
        {"image": RED, "label": 0, "file": "b.jpg"},
        {"image": RED, "label": -1, "file": "c.jpg"},
    )
    builder = prepare("tfds:stored", data_dir=tmp_path, allow_bad=True)
    found = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert sorted(e["captions"].tolist() for e in found) == [
        [b"a photo of a cat"],
        [b"a photo of a house sparrow"],
    ]
    assert list(builder.info.metadata["skipped"]) == ["blank caption"]
    note = builder.info.metadata["note"]
    assert note.startswith("stored/1.0.0 of tensorflow-datasets has no captions")
    assert note.endswith('"a photo of a ..." with the names of label')


def test_tfds_several_labels_and_lists_of_lists(tmp_path):
    label = tfds.features.ClassLabel(names=["cat", "dog", "cow"])
    texts = tfds.features.Sequence(tfds.features.Sequence(tfds.features.Text()))
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.Sequence(label),
        "words": texts,
    }
    example = {"image": RED, "label": [2, 0, 2], "words": [["a"], ["b", "c"]]}
    store(tmp_path, features, example)
    builder = prepare("tfds:stored", data_dir=tmp_path)
    assert captions(builder) == [["a photo of a cow", "a photo of a cat"]]
    builder = prepare("tfds:stored:image,words", data_dir=tmp_path)
    assert captions(builder) == [["a", "b", "c"]]


def test_tfds_images_are_not_encoded_twice(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    Image.fromarray(RED).save(tmp_path / "b.webp")
    features = {"image": tfds.features.Image(), "text": tfds.features.Text()}
    store(
        tmp_path / "records",
        features,
        {"image": tmp_path / "a.png", "text": "a"},
        {"image": tmp_path / "b.webp", "text": "b"},
    )
    builder = prepare("tfds:stored", data_dir=tmp_path / "records", allow_bad=True)
    (example,) = tfds.as_numpy(builder.as_dataset(split="train"))
    assert list(example["captions"]) == [b"b"]
    assert [*builder.info.metadata["skipped"]] == ["cannot be read"]


def test_tfds_unclear_columns(tmp_path):
    image, text = tfds.features.Image(), tfds.features.Text()
    depth = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
    pixel = np.ones((20, 24, 1), np.float32)
    store(tmp_path, {"text": text, "depth": depth}, {"text": "a", "depth": pixel})
    assert refusal("tfds:stored", tmp_path) == (
        "stored has no image: choose another dataset"
    )
    store(
        tmp_path,
        {"left": image, "right": image, "text": text},
        {"left": RED, "right": RED, "text": "a"},
        name="pair",
    )
    assert refusal("tfds:pair", tmp_path) == (
        "pair has no obvious image: give pair:image_key,text_key, where "
        "the image is one of left, right"
    )
    assert captions(prepare("tfds:pair:right,", tmp_path)) == [["a"]]
    assert "pair has no image up: give pair:" in refusal("tfds:pair:up,", tmp_path)
    assert "pair has no text title:" in refusal("tfds:pair:left,title", tmp_path)
    store(
        tmp_path, {"image": image, "file": text}, {"image": RED, "file": "a"}, name="f"
    )
    # It is a text, but the name of a file does not describe an image.
    assert "f has no obvious text" in refusal("tfds:f", tmp_path)
    store(tmp_path, {"image": image, "n": np.int64}, {"image": RED, "n": 1}, name="n")
    assert refusal("tfds:n", tmp_path) == "n has no text: choose another dataset"


def test_tfds_without_training_data(tmp_path):
    features = {"image": tfds.features.Image(), "text": tfds.features.Text()}
    store(tmp_path, features, {"image": RED, "text": "a"}, split="test")
    assert refusal("tfds:stored", tmp_path) == "stored has no train split, only test"


def test_tfds_that_is_not_available(tmp_path):
    assert "tfds:NAME" in refusal("tfds", tmp_path)
    assert "tfds:NAME" in refusal("tfds::image,text", tmp_path)
    assert "has no dataset galip_nothing" in refusal("tfds:galip_nothing", tmp_path)
    assert "galip_test_texts/fish" in refusal("tfds:galip_test_texts/fish", tmp_path)
    assert "tfds:a b" in refusal("tfds:a b", tmp_path)
    assert refusal("tfds:galip_test_texts/needy", tmp_path) == (
        "galip_test_texts/needy needs a package: pip install galip_nothing"
    )
    assert refusal("tfds:galip_test_texts/remote", tmp_path, OSError) == (
        "galip_test_texts/remote cannot be prepared by tensorflow-datasets: no network"
    )


# Hugging Face's


hugging_face = pytest.mark.extra(
    "hf", "datasets.config"
)  # tests/datasets has no config


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def image_folder(folder, rows):
    """Write images and `metadata.jsonl` for the library's `ImageFolder`."""
    folder.mkdir(parents=True)
    for row in rows:
        Image.fromarray(RED).save(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@hugging_face
@pytest.mark.skipif(not EMOJI.exists(), reason="needs the emoji dataset")
def test_hub_with_emoji(hub, tmp_path):
    folder = tmp_path / "emoji"
    lines = (EMOJI / "test" / "metadata.jsonl").read_text().splitlines()[:20]
    for split, part in (("train", lines[:15]), ("test", lines[15:])):
        (folder / split).mkdir(parents=True)
        (folder / split / "metadata.jsonl").write_text("\n".join(part))
        for line in part:
            shutil.copy(EMOJI / "test" / json.loads(line)["file_name"], folder / split)
    builder = prepare(f"hf:{folder}", data_dir=tmp_path / "records")
    assert captions(builder) == [json.loads(line)["text"] for line in lines[:15]]
    assert captions(builder, "test") == [
        json.loads(line)["text"] for line in lines[15:]
    ]
    assert report(builder) == []
    # The images are transparent: the keycap 6 is on white.
    examples = tfds.as_numpy(builder.as_dataset(split="train"))
    image = next(example["image"] for example in examples if int(example["id"]) == 0)
    assert image.shape == (304, 304, 3)
    assert image[0, 0].min() > 250
    assert image[152, 152].min() < 250


@hugging_face
def test_hub_changed_folder_is_prepared_again(hub, tmp_path):
    rows = [{"file_name": "a.png", "text": "a"}, {"file_name": "b.png", "text": "b"}]
    image_folder(tmp_path / "birds", rows)
    assert captions(prepare(f"hf:{tmp_path / 'birds'}", tmp_path)) == [["a"], ["b"]]
    rows[0]["text"] = "another"
    shutil.rmtree(tmp_path / "birds")
    image_folder(tmp_path / "birds", rows)
    builder = prepare(f"hf:{tmp_path / 'birds'}", tmp_path)
    assert captions(builder) == [["another"], ["b"]]
    assert is_red(builder)


@hugging_face
def test_hub_keys(hub, tmp_path):
    rows = [{"file_name": "a.png", "title": "a title", "text": "a text"}]
    image_folder(tmp_path / "a:b", rows)
    for keys, expected in (("", "a text"), (":image,title", "a title")):
        builder = prepare(f"hf:{tmp_path / 'a:b'}{keys}", data_dir=tmp_path)
        assert captions(builder) == [[expected]]
    line = refusal(f"hf:{tmp_path / 'a:b'}:image,name", tmp_path)
    assert "has no text name: give " in line
    assert line.endswith("where the text is one of title, text")
    assert "has no image photo" in refusal(f"hf:{tmp_path / 'a:b'}:photo,", tmp_path)


@hugging_face
def test_hub_parquet_with_gaps(hub, tmp_path):
    Image.fromarray(RED).save(tmp_path / "a.png")
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    columns = {
        "photo": [image, image, image, None, {"bytes": b"none", "path": None}],
        "sentences": [["a", "b"], [], None, ["d"], ["e"]],
        "number": [0, 1, 2, 3, 4],
    }
    features = hub.Features(
        photo=hub.Image(),
        sentences=hub.List(hub.Value("string")),
        number=hub.Value("int8"),
    )
    (tmp_path / "birds").mkdir()
    table = hub.Dataset.from_dict(columns, features=features)
    table.to_parquet(tmp_path / "birds" / "train.parquet")
    builder = prepare(f"hf:{tmp_path / 'birds'}", data_dir=tmp_path, allow_bad=True)
    assert captions(builder) == [["a", "b"]]
    assert is_red(builder)
    assert builder.info.metadata["skipped"] == {
        "blank caption": ["000000001", "000000002"],
        "no image": ["000000003"],
        "cannot be read": ["000000004"],
    }


@hugging_face
def test_hub_unclear_columns(hub, tmp_path):
    image_folder(tmp_path / "silent", [{"file_name": "a.png", "number": 1}])
    assert "silent has no text" in refusal(f"hf:{tmp_path / 'silent'}", tmp_path)
    image_folder(tmp_path / "named", [{"file_name": "a.png", "title": "a"}])
    line = refusal(f"hf:{tmp_path / 'named'}", tmp_path)
    assert "named has no obvious text" in line


@hugging_face
def test_hub_without_training_data(hub, tmp_path):
    image_folder(tmp_path / "birds" / "test", [{"file_name": "a.png", "text": "a"}])
    line = refusal(f"hf:{tmp_path / 'birds'}", tmp_path)
    assert line.endswith("birds has no train split, only test")


@hugging_face
def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, caplog):
    def load_dataset(name):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise ConnectionError(f"{name} is not there\nmore")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(OSError, match=r"cannot be loaded: maria/birds is not there$"):
        prepare("hf:maria/birds", tmp_path)
    assert caplog.messages == []


@hugging_face
def test_hub_runs_no_code(hub, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    )
    refusal(f"hf:{tmp_path / 'evil'}", tmp_path, OSError)
    assert not (tmp_path / "ran").exists()


@hugging_face
def test_hub_that_cannot_be_reached(hub, tmp_path, monkeypatch):
    def load_dataset(name):
        raise ConnectionError(f"cannot reach {name}\nand a long explanation")

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    assert refusal("hf:user/birds", tmp_path, OSError) == (
        "hf:user/birds cannot be loaded: cannot reach user/birds"
    )
    assert "hf:USER/NAME" in refusal("hf:", tmp_path)


def test_hub_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal("hf:user/birds", tmp_path) == (
        "hf:NAME needs the datasets library: pip install 'galip-keras[hf]'"
    )


def test_labels_are_different_for_every_source():
    sources = ("user/birds", "user/birds:image,text", "user_birds", "b/" + "a" * 99)
    labels = [adapters.FromHub.configure("hf", source).name for source in sources]
    assert len(set(labels)) == len(sources)
    assert labels[0].startswith("user_birds-")
    assert max(map(len, labels)) < 60
