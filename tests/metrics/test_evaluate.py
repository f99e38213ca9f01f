"""`evaluate` and `galip evaluate`: what they measure, and what they report."""

import dataclasses
import functools
import json

import child
import extras
import keras
import numpy as np
import pytest
from drawn import draw_circles, noise
from keras.ops import convert_to_numpy
from PIL import ExifTags, Image

from galip_keras import datasets, evaluate
from galip_keras.datasets.pipeline import fixed_images
from galip_keras.images import SUFFIXES, read_image
from galip_keras.metrics import (
    clip_score,
    cmmd,
    diversity,
    frechet_distance,
    image_sets,
    r_precision,
)
from galip_keras.metrics.config import EvaluationConfig
from galip_keras.metrics.statistics import Statistics
from galip_keras.presets.loading import load_model

ALL = {"fid", "kid", "cmmd", "clip-score", "precision", "recall", "diversity"}

pytestmark = [
    pytest.mark.every_backend,
    # Its figures are compared with those of the others.
    pytest.mark.backend("tensorflow", "torch"),
    pytest.mark.usefixtures("less_to_compile"),
]

# On the backend that compiles nothing: these tests are the same on all.
once = pytest.mark.backend("torch")


@pytest.fixture(scope="module")
def model(less_to_compile, tmp_path_factory):
    """A preset: an architecture would have different weights each time."""
    folder = tmp_path_factory.mktemp("model") / "preset"
    load_model("galip_tiny").save_to_preset(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def report(data, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return evaluate(model, **data, num_images=8, out=out), out


@pytest.fixture
def noise_images(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 256, (40 + i, 30, 3), dtype="uint8")
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def values(report):
    return {figure["metric"]: figure["value"] for figure in report["figures"]}


def embed(network, images):
    pixels = np.stack(images) / np.float32(127.5) - 1
    _, embeddings = network.backbone.clip.extract_features_and_embed(pixels)
    return convert_to_numpy(embeddings)


def test_figures_equal_those_computed_by_hand(data, report, model):
    found = values(report[0])
    assert set(found) == ALL
    builder = datasets.prepare(**data)
    real, captions = fixed_images(builder, 6, 32)
    captions = [*captions, *captions[:2]]
    network = load_model(model)
    made = np.concatenate(
        [network.generate([text], seed=i) for i, text in enumerate(captions)]
    )
    ours, theirs = embed(network, made), embed(network, real)
    texts = network.backbone.clip.embed_text(np.asarray(network.preprocessor(captions)))
    expected = {
        "fid": frechet_distance(
            ours.mean(axis=0), np.cov(ours.T), theirs.mean(axis=0), np.cov(theirs.T)
        ),
        "cmmd": cmmd(ours, theirs),
        "clip-score": clip_score(ours, convert_to_numpy(texts)),
        "diversity": diversity(made),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.02, abs=1e-3), name


@once
def test_the_report_says_how_figures_were_measured(report, data, model):
    report, _ = report
    assert report["pictures"] == {
        "model": model,
        "precision": "float32",
        "seed": 0,
        "dataset": data["dataset"],
        "split": "train",
        "captions_a_picture": 2,
        "count": 8,
    }
    assert report["real"] == {
        "dataset": data["dataset"],
        "split": "train",
        "size": 32,
    }
    figures = {figure["metric"]: figure for figure in report["figures"]}
    assert figures["fid"]["features"] == "clip"
    assert (figures["fid"]["num_images"], figures["fid"]["num_real"]) == (8, 6)
    assert "nearest neighbour to 32 pixels" in figures["fid"]["resize"]
    assert "does not have full rank" in figures["fid"]["warning"]
    assert "biased" in figures["clip-score"]["warning"]
    assert all(figure["comparable"] for figure in figures.values())
    assert report["left_out"] == {"r-precision": "it needs 100 images, and there are 8"}


@once
def test_the_report_on_disk(report):
    report, folder = report
    assert json.loads((folder / "report.json").read_text()) == report
    page = (folder / "report.md").read_text()
    for figure in report["figures"]:
        assert f"| {figure['metric']} | {figure['value']:.4g} |" in page
    assert "8 images by " in page
    assert Image.open(folder / "samples.png").size == (64, 64)


@once
def test_cached_statistics_give_the_same_figures(data, report, model):
    builder = datasets.prepare(**data)
    files = list((builder.data_path / "statistics").iterdir())
    assert [file.name.rpartition("-")[0] for file in files] == ["train-32px-6"]
    assert values(evaluate(model, **data, num_images=8)) == values(report[0])
    # They are read, not computed again.
    statistics = Statistics.load(files[0])
    statistics.mean[:] += 1
    statistics.save(files[0], with_features=True)
    changed = values(evaluate(model, **data, num_images=8, metrics=["fid"]))
    files[0].unlink()
    assert changed["fid"] > values(report[0])["fid"] + 1


@once
def test_another_seed_gives_other_images(data, report, model):
    other = evaluate(model, **data, num_images=8, seed=5, metrics=["cmmd"])
    assert values(other)["cmmd"] != values(report[0])["cmmd"]


@once
def test_r_precision_among_the_captions_of_a_group(data, model):
    report = evaluate(model, **data, num_images=100, metrics=["r-precision"])
    (figure,) = report["figures"]
    # Six captions, each about seventeen times.
    assert 0 <= figure["value"] <= 1
    assert figure["num_captions"] == 100
    network = load_model(model)
    _, captions = fixed_images(datasets.prepare(**data), 100, 32)
    made = [network.generate([text], seed=i)[0] for i, text in enumerate(captions)]
    texts = network.backbone.clip.embed_text(np.asarray(network.preprocessor(captions)))
    expected = r_precision(embed(network, made), convert_to_numpy(texts))
    assert figure["value"] == pytest.approx(expected, abs=0.03)


@once
def test_folders_on_both_sides(noise_images, tmp_path, scorer):
    circles = draw_circles(tmp_path / "circles")
    report = evaluate(images=noise_images, real=circles, scorer=scorer)
    found = values(report)
    assert {"fid", "kid", "cmmd", "precision", "recall"} == set(found)
    assert report["left_out"]["clip-score"] == "not every image has a caption"
    assert report["left_out"]["diversity"] == "the images are not all of one size"
    same = values(evaluate(images=circles, real=circles, scorer=scorer))
    assert same["fid"] == pytest.approx(0, abs=1e-6)
    assert same["precision"] == same["recall"] == 1
    # These have captions in text files.
    assert "clip-score" in same


@once
def test_a_scorer_besides_the_model_s_own_clip(data, scorer, model):
    report = evaluate(
        model, **data, num_images=8, scorer=scorer, metrics=["clip-score"]
    )
    own, other = report["figures"]
    assert (own["scorer"], other["scorer"]) == ("the model's own CLIP", scorer)
    assert "warning" not in other
    assert own["value"] != other["value"]
    assert "bicubic" in other["resize"]


@once
def test_statistics_are_written_and_read(data, tmp_path, model):
    path = tmp_path / "real.npz"
    first = evaluate(model, **data, num_images=8, metrics=["fid"], save_statistics=path)
    with np.load(path) as file:
        assert file["mu"].shape == (12,)
        assert file["sigma"].shape == (12, 12)
    again = evaluate(model, **data, num_images=8, statistics=path)
    assert values(again)["fid"] == pytest.approx(values(first)["fid"], rel=1e-6)
    assert again["left_out"]["kid"] == (
        "it needs real images, not only their mean and covariance"
    )
    np.savez(path, mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(ValueError, match="are of 7 features, and clip has 12"):
        evaluate(model, **data, num_images=8, statistics=path)


@once
@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_captions_that_sample_wrote(galip, tmp_path, scorer, model, file_format):
    galip("sample", "a red bird", "--model", model, "--num-images", 3,
          "--out", tmp_path / "made", "--format", file_format)  # fmt: skip
    report = evaluate(images=tmp_path / "made", scorer=scorer, metrics=["clip-score"])
    assert report["figures"][0]["num_images"] == 3


@once
def test_small_batches_give_the_same_figures(monkeypatch, noise_images, scorer):
    monkeypatch.setattr("galip_keras.metrics.image_sets.BATCH_SIZE", 2)
    whole = values(evaluate(images=noise_images, real=noise_images, scorer=scorer))
    assert whole["fid"] == pytest.approx(0, abs=1e-6)


@once
def test_the_toybirds_classifier_as_features(data, model):
    report = evaluate(model, **data, num_images=8, features="toybirds", metrics=["fid"])
    assert report["figures"][0]["features"] == "toybirds"
    assert report["figures"][0]["value"] > 1


@once
def test_bad_images(tmp_path, noise_images, scorer):
    with pytest.raises(ValueError, match="holds no images"):
        evaluate(images=tmp_path / "none", real=noise_images, scorer=scorer)
    one = tmp_path / "one"
    one.mkdir()
    Image.new("L", (9, 9)).save(one / "a.png")
    with pytest.raises(ValueError, match="holds one image: give a folder of two"):
        evaluate(images=one, real=noise_images)
    Image.new("L", (9, 9), 200).save(one / "b.png")
    report = evaluate(images=one, real=noise_images, scorer=scorer, metrics=["fid"])
    assert report["pictures"]["grey"] == 2
    (one / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"c\.png: cannot be read: .* remove it"):
        evaluate(images=one, real=noise_images, scorer=scorer)


@once
def test_files_of_every_kind_are_read_as_in_training(tmp_path):
    image = noise((40, 30))
    for suffix in SUFFIXES:
        kind = Image.registered_extensions().get(suffix, "JPEG")
        image.save(tmp_path / f"plain{suffix}", kind)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "t.png", exif=turned)
    grey = np.full((30, 40), 30000, "uint16")
    Image.fromarray(grey).save(tmp_path / "u.png")
    Image.new("RGBA", (40, 30), (200, 30, 40, 0)).save(tmp_path / "v.png")
    images = image_sets.of_folder(tmp_path)
    assert (images.count, images.facts["sizes"]) == (len(SUFFIXES) + 3, 1)
    (batch,) = images.batches()
    for path, pixels in zip(sorted(tmp_path.iterdir()), batch, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(read_image(path)))
    *_, upright, dark, white = batch
    np.testing.assert_array_equal(upright, np.asarray(image))
    assert (dark == 116).all()
    assert (white == 255).all()


@once
def test_files_are_found_as_in_training(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    noise((9, 9)).save(folder / "a.png")
    (folder / "._a.png").write_bytes(b"of macOS")
    (tmp_path / "more").mkdir()
    noise((9, 9)).save(tmp_path / "more" / "b.png")
    (folder / "linked").symlink_to(tmp_path / "more")
    (folder / "again").symlink_to(tmp_path / "more")
    (folder / "round").symlink_to(folder)
    assert image_sets.of_folder(folder).count == 2


@once
def test_files_are_read_as_by_pytorch_fid(tmp_path):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    noise((40, 30)).save(tmp_path / "a.png", exif=turned)
    Image.new("RGBA", (40, 30), (200, 30, 40, 0)).save(tmp_path / "b.png")
    images = image_sets.of_folder(tmp_path, reader="pytorch-fid")
    assert (images.facts["sizes"], images.facts["reader"]) == (1, "pytorch-fid")
    (batch,) = images.batches()
    for path, pixels in zip(sorted(tmp_path.iterdir()), batch, strict=True):
        expected = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(pixels, expected)
    for reader in ("clean", "pytorch-fid"):
        with pytest.raises(ValueError, match="`reader`"):
            EvaluationConfig("toybirds", "toybirds", reader=reader)


@pytest.mark.parametrize("setting", [{"precision": "bfloat16"}, {"seed": 1}])
def test_settings_of_a_model_are_refused_for_images(setting):
    EvaluationConfig("toybirds", "toybirds", **setting)
    with pytest.raises(ValueError, match="are for a `model`"):
        EvaluationConfig(images="folder", **setting)


@once
def test_features_that_are_not_finite(noise_images, scorer, monkeypatch):
    monkeypatch.setattr(
        "galip_keras.metrics.features.Extractor.__call__",
        lambda self, images: np.full((len(images), self.dim), np.nan),
    )
    with pytest.raises(ValueError, match="not finite numbers"):
        evaluate(images=noise_images, real=noise_images, scorer=scorer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "toybirds", "--metrics", "fid,is"), "'is' is none of fid"),
        ((), "give --dataset"),
        (("--images", "a", "--model", "b"), "exclude each other"),
        (("--images", "a", "--images", "b", "--dataset", "c"), "exclude each other"),
        (("--images", "a", "--images", "b", "--images", "c"), "once or twice"),
    ],
)
def test_contradictory_options(galip, arguments, message):
    code, output, errors = galip("evaluate", *arguments)
    assert code == 2
    assert message in errors
    assert not output


def test_the_command(galip, data, noise_images, scorer, model):
    arguments = ("--dataset", data["dataset"], "--data-dir", data["data_dir"])
    made = ("evaluate", "--model", model, *arguments, "--num-images", 8)
    code, output, errors = galip(*made)
    assert code == 0
    assert output.splitlines()[0].split()[0] == "fid"
    assert f"8 images by {model}" in errors
    code, output, _ = galip(*made, "--metrics", "cmmd,diversity", "--json")
    assert code == 0
    assert set(values(json.loads(output))) == {"cmmd", "diversity"}
    folders = ("--images", noise_images, "--images", noise_images)
    code, _, errors = galip("evaluate", *folders, "--features", "inception",
                            "--weights", "nothing.pth")  # fmt: skip
    assert code == 1
    assert "no file nothing.pth: leave out --weights to fetch it" in errors
    assert errors.count("\n") == 1
    code, _, errors = galip("evaluate", *folders)
    assert code == 1
    assert "give a CLIP preset as --scorer" in errors


@once
@pytest.mark.slow
def test_thirty_thousand_images_in_bounded_memory():
    """Features of the size of Inception's, and as many real images as in the paper."""
    script = """
import memory
import numpy as np
from galip_keras.metrics.evaluator import Evaluator
from galip_keras.metrics.image_sets import ImageSet

rng = np.random.default_rng(0)


class Features:
    key = name = resize = comparable = "none"
    dim = 2048

    def __call__(self, images):
        return rng.standard_normal((len(images), 2048), dtype="float32")


def batches():
    for _ in range(30_000 // 32):
        yield list(np.zeros((32, 256, 256, 3), "uint8"))


evaluator = Evaluator.__new__(Evaluator)
evaluator.scorers, evaluator.clip, evaluator.extractor = [], None, Features()
images = ImageSet(30_000, batches, None, {"split": "test", "size": 256})
report, _, _ = evaluator.report(images, images, ["fid", "kid"], progress=False)
for figure in report["figures"]:
    print(figure["metric"], figure["value"])
print("peak", memory.peak())
"""
    lines = dict(line.split() for line in child.run(script).stdout.splitlines())
    assert float(lines["kid"]) == pytest.approx(0, abs=1e-3)
    # Half of 2048^2 / n for each of the two, and a little more.
    assert 30 < float(lines["fid"]) < 80
    assert int(lines["peak"]) < 2 * 2**30


AGREE = """
import json, sys
import galip_keras

report = galip_keras.evaluate(images=sys.argv[1], real=sys.argv[2], scorer=sys.argv[3])
print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_the_same_figures_on_every_backend(noise_images, tmp_path, scorer, other):
    extras.need(other, other)
    folders = (noise_images, draw_circles(tmp_path / "circles"), scorer)
    ours, theirs = (
        values(json.loads(child.run(AGREE, *folders, KERAS_BACKEND=backend).stdout))
        for backend in ("tensorflow", other)
    )
    assert ours.keys() == theirs.keys() >= {"fid", "kid", "cmmd"}
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@once
def test_the_network_of_keras_applications(noise_images, monkeypatch, capsys):
    network = keras.applications.InceptionV3
    monkeypatch.setattr(
        keras.applications,
        "InceptionV3",
        functools.partial(network, weights=None),
    )
    report = evaluate(
        images=noise_images,
        real=noise_images,
        features="inception-keras",
        metrics=["fid"],
    )
    (figure,) = report["figures"]
    assert figure["value"] == pytest.approx(0, abs=1e-6)
    assert "no published FID" in figure["comparable"]

    def unreachable(**kwargs):
        print("Downloading")
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "InceptionV3", unreachable)
    with pytest.raises(
        ValueError, match=r"could not be downloaded .OSError: no network"
    ):
        evaluate(images=noise_images, real=noise_images, features="inception-keras")
    assert not capsys.readouterr().out


@once
def test_the_command_has_an_option_for_every_setting():
    from galip_cli.evaluate import evaluate as command

    options = {parameter.name for parameter in command.params}
    settings = {field.name for field in dataclasses.fields(EvaluationConfig)}
    # The second folder of --images is `real`.
    assert options - {"as_json", "debug", "verbose", "yes"} == settings - {"real"}


@once
def test_settings_that_do_not_exist_or_contradict():
    with pytest.raises(TypeError, match="'num_image'"):
        evaluate("toybirds", "toybirds", num_image=3)
    with pytest.raises(ValueError, match="either a `model` or a folder of `images`"):
        evaluate(dataset="toybirds")
    with pytest.raises(ValueError, match="give a `dataset`"):
        evaluate("toybirds")


@once
def test_an_unwritable_report_fails_before_measuring(noise_images):
    for option in ("out", "save_statistics"):
        with pytest.raises(OSError, match=r"/dev/null/x.* cannot be written .*choose"):
            evaluate(images=noise_images, **{option: "/dev/null/x/y"})
