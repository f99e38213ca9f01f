"""Models for production, by their own runtimes."""

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
from importlib import metadata

import child
import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from packaging.requirements import Requirement
from PIL import Image

from galip_cli.main import galip as group
from galip_keras import GALIPTextToImage, backend, noise, processor
from galip_keras.export import runtimes
from galip_keras.export import writers as export
from galip_keras.files import MANIFEST
from galip_keras.models.fidelity import psnr

# It is TensorFlow that exports, whatever trained the model.
pytestmark = pytest.mark.backend("tensorflow")

all_formats = pytest.mark.extra("export", "ai_edge_litert", "onnxruntime", "openvino")

FORMATS = [
    ("saved_model", None),
    pytest.param("litert", None, marks=all_formats),
    pytest.param("litert", "float16", marks=[all_formats, pytest.mark.slow]),
    pytest.param("litert", "int8", marks=[all_formats, pytest.mark.slow]),
    pytest.param("onnx", None, marks=all_formats),
    pytest.param("openvino", None, marks=all_formats),
]

# Makes images in a process, and prints what it has imported.
SAMPLE = """
import sys
from galip_cli.main import main
try:
    main(["sample", *sys.argv[1:]])
finally:
    print([m for m in ("keras", "tensorflow", "torch") if m in sys.modules])
"""

SERVE = """
import sys
import numpy as np
import tensorflow as tf
import tensorflow_text
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
prompts, seeds = ["a red bird", "an owl", "2 Tents"], [5, 2**40, 0]
png = serve(prompt=tf.constant(prompts), seed=tf.constant(seeds, tf.int64))
images = np.stack([tf.io.decode_png(x).numpy() for x in png["image_bytes"]])
one = serve(prompt=tf.constant(prompts[1:2]), seed=tf.constant(seeds[1:2], tf.int64))
assert one["image_bytes"].shape == (1,)
np.save(sys.argv[2], images)
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    tiny.text_to_image(0.05).save_to_preset(str(folder))
    return folder


@pytest.fixture(scope="module")
def model(preset):
    return GALIPTextToImage.from_preset(str(preset))


@pytest.fixture(scope="module")
def exported(preset, tmp_path_factory):
    """Export once by the command. Return the folder and what was said."""

    @functools.cache
    def export_once(file_format, quantize):
        out = tmp_path_factory.mktemp("exports") / "tiny"
        args = [f"--model={preset}", f"--format={file_format}", f"--out={out}"]
        result = CliRunner().invoke(
            group, ["export", *args, *([f"--quantize={quantize}"] if quantize else [])]
        )
        assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.stderr
        return out, result.stderr

    return export_once


@pytest.fixture(scope="module")
def saved_model(exported):
    return exported("saved_model", None)[0]


def differ(images, others):
    return np.abs(np.asarray(images, int) - np.asarray(others, int)).max()


@pytest.mark.parametrize(("file_format", "quantize"), FORMATS)
def test_an_export_makes_the_same_images(
    exported, model, tmp_path, file_format, quantize
):
    out, errors = exported(file_format, quantize)
    assert "grey levels" in errors.splitlines()[-1]
    assert "no effect" not in errors
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["format"] == file_format
    assert manifest["image_size"] == 32
    for name, facts in manifest["files"].items():
        content = (out / name).read_bytes()
        assert len(content) == facts["bytes"]
        assert hashlib.sha256(content).hexdigest() == facts["sha256"]
    result = child.run(
        SAMPLE, "a red bird", "an owl's nest, 12 cafés &amp; 猫", "--model", out,
        "--seeds", "3,9", "--out", tmp_path / "made", "--truncation", "0.8",
    )  # fmt: skip
    *paths, imported = result.stdout.splitlines()
    assert imported == (
        "['keras', 'tensorflow']" if file_format == "saved_model" else "[]"
    )
    expected = [
        model.generate([prompt], seed=seed, truncation=0.8)[0]
        for prompt in ("a red bird", "an owl's nest, 12 cafés &amp; 猫")
        for seed in (3, 9)
    ]
    made = [np.asarray(Image.open(path)) for path in paths]
    assert differ(made, expected) <= {None: 1, "float16": 3, "int8": 60}[quantize]
    assert differ(made[0], made[2]) > 1
    loaded = runtimes.load(out)
    assert loaded.sizes == model.sizes
    token_ids = np.asarray(model.preprocessor(["a red bird", "an owl"]))
    inputs = token_ids, noise([3, 9], model.latent_dim)
    found = loaded.generate_from_token_ids(*inputs)
    assert found.dtype == np.uint8
    limit = {None: 1, "float16": 3, "int8": 60}[quantize]
    assert differ(found, model.generate_from_token_ids(*inputs)) <= limit
    shorter = loaded.generate_from_token_ids(token_ids[:, :20], inputs[1])
    np.testing.assert_array_equal(shorter, found)
    with pytest.raises(ValueError, match="`token_ids` must be from 0"):
        loaded.generate_from_token_ids(token_ids - 1, inputs[1])
    with pytest.raises(ValueError, match="`noise` must have the shape"):
        loaded.generate_from_token_ids(token_ids, inputs[1][:, 1:])
    with pytest.raises(ValueError, match="`text_embeddings` must have the shape"):
        loaded.decode(inputs[1], loaded.embed(["a", "b"])[:, None])
    single = loaded.generate("a red bird", seed=3)
    np.testing.assert_array_equal(single, loaded.generate(["a red bird"], seed=3)[0])
    assert len(loaded.embed("a red bird")) == 1
    for nothing in ([], [1], None):
        with pytest.raises(ValueError, match="prompts"):
            loaded.generate(nothing)


def test_a_saved_model_takes_strings_and_gives_png(saved_model, model, tmp_path):
    child.run(SERVE, saved_model, tmp_path / "images.npy")
    expected = model.generate(["a red bird", "an owl", "2 Tents"], seed=[5, 2**40, 0])
    assert differ(np.load(tmp_path / "images.npy"), expected) <= 1
    # Each weight is stored once.
    files = (saved_model / "variables").iterdir()
    stored = sum(path.stat().st_size for path in files)
    weights = sum(4 * np.prod(v.shape) for v in model.backbone.variables)
    assert stored < 1.2 * weights


def test_the_service_has_the_signatures_of_the_saved_model(saved_model, model):
    import tensorflow as tf
    from fastapi.testclient import TestClient
    from service import PREDICT, wait_until_ready
    from tensorflow.core.framework import types_pb2

    from galip_keras.serving.app import create_app

    exported = runtimes.load(saved_model)
    signatures = tf.saved_model.load(str(saved_model)).signatures
    token_ids = np.asarray(model.preprocessor(["a red bird", "an owl"]))
    latents = noise([3, 9], model.latent_dim)
    embedded = signatures["embed"](prompt=tf.constant(["a red bird", "an owl"]))
    generated = signatures["generate"](
        token_ids=tf.constant(token_ids), noise=tf.constant(latents)
    )

    def facts(specs):
        return {
            name: (
                types_pb2.DataType.Name(x.dtype.as_datatype_enum),
                *[str(-1 if size is None else size) for size in x.shape],
            )
            for name, x in specs.items()
        }

    def described(tensors):
        return {
            name: (x["dtype"], *[dim["size"] for dim in x["tensor_shape"]["dim"]])
            for name, x in tensors.items()
        }

    with TestClient(create_app(exported, batch_size=2)) as client:
        wait_until_ready(client)

        def ask(name, inputs):
            asked = {"signature_name": name, "inputs": inputs}
            return client.post(PREDICT, json=asked).json()["outputs"]

        embeddings = ask("embed", ["a red bird", "an owl"])
        inputs = {"token_ids": token_ids.tolist(), "noise": latents.tolist()}
        images = ask("generate", inputs)
        metadata = client.get("/v1/models/galip/metadata").json()["metadata"]
    np.testing.assert_allclose(embeddings, embedded["embedding"], rtol=1e-5, atol=1e-5)
    assert differ(images, generated["images"]) <= 1
    found = metadata["signature_def"]["signature_def"]
    assert found.keys() == signatures.keys() - {"__saved_model_init_op"}
    for name, signature in found.items():
        specs = signatures[name].structured_input_signature[1]
        assert described(signature["inputs"]) == facts(specs)
        specs = signatures[name].structured_outputs
        assert described(signature["outputs"]) == facts(specs)


def test_an_export_names_the_words_that_it_does_not_read(saved_model, model, capsys):
    exported = runtimes.load(saved_model)
    model.preprocessor.warns = True
    for network in (model, exported, exported):
        network.embed(["a bird", "a bird, " * 50 + "red"])
    line, same = capsys.readouterr().err.splitlines()
    assert line == same
    assert line.endswith("bird, red")


@pytest.mark.parametrize(
    "file_format",
    ["saved_model", pytest.param("openvino", marks=all_formats)],
)
def test_an_export_in_bfloat16(exported, model, file_format, monkeypatch):
    out, _ = exported(file_format, None)
    fast = runtimes.load(out, "bfloat16")
    assert fast.precision == "bfloat16"
    found, expected = (x.generate(["a bird"] * 2, seed=[1, 2]) for x in (fast, model))
    assert psnr(found, expected) > 30
    for has_units in (True, False):
        monkeypatch.setattr(processor, "has_bfloat16", lambda has=has_units: has)
        monkeypatch.setattr(runtimes, "is_faithful", lambda *_: True)
        chosen = runtimes.load(out, "auto").precision
        assert chosen == ("bfloat16" if has_units else "float32")
    monkeypatch.setattr(processor, "has_bfloat16", lambda: True)
    monkeypatch.setattr(runtimes, "is_faithful", lambda *_: False)
    assert runtimes.load(out, "auto").precision == "float32"


@all_formats
def test_what_a_runtime_cannot_compute_in_is_one_line(galip, exported, tmp_path):
    out, _ = exported("onnx", None)
    options = ["--model", out, "--out", tmp_path]
    code, _, errors = galip("sample", "a bird", *options, "--precision", "bfloat16")
    assert (code, errors.count("\n")) == (1, 1)
    assert "computes in float32, not in bfloat16" in errors
    assert runtimes.load(out, "auto").precision == "float32"


@pytest.mark.slow
def test_xla_makes_the_same_images(model, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "should_jit", lambda generator: True)
    # Writing compares it, too.
    export.export(model, tmp_path / "out", "saved_model")
    # The graph in bfloat16 was traced with it, and left it as it was.
    assert model.precision == "float32"
    loaded = runtimes.load(tmp_path / "out")
    calls = []
    compiled = loaded._model.decode_compiled
    monkeypatch.setattr(
        loaded._model, "decode_compiled",
        lambda *args: calls.append(args) or compiled(*args),
    )  # fmt: skip
    found = [loaded.generate(["a red bird"] * 3, seed=5) for _ in range(3)]
    assert len(calls) == 2
    assert np.abs(np.subtract(found[0], found[1], dtype=int)).max() <= 1


@all_formats
def test_what_came_out_wrong_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setitem(export._PSNR, "int8", 500.0)
    with pytest.raises(ValueError, match="the export does not match the model"):
        export.export(model, tmp_path / "out", "litert", "int8")
    monkeypatch.setattr(export.subprocess, "run", lambda *_, **__: child_that_fails())
    with pytest.raises(ValueError, match="does not run: no runtime"):
        export.export(model, tmp_path / "out", "litert")
    assert list(tmp_path.iterdir()) == []


def child_that_fails():
    return export.subprocess.CompletedProcess([], 1, "", "Traceback\nno runtime\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--format", "onnx", "--quantize", "int8"], "--quantize is for litert"),
        (["--format", "nothing"], "'nothing' is not one of"),
        pytest.param(
            ["--format", "onnx", "--model", "nowhere"],
            "unknown model 'nowhere'",
            marks=all_formats,
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line(galip, tmp_path, args, words):
    code, output, errors = galip("export", "--out", tmp_path / "out", *args)
    assert code in (1, 2)
    assert output == ""
    assert errors.count("\n") == 1
    assert words in errors


def test_a_missing_runtime_is_one_line(galip, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, errors = galip("export", "--format", "onnx", "--out", tmp_path / "out")
    assert code == 1
    assert "pip install 'galip-keras[export]'" in errors


def test_nothing_is_written_over(model, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        export.export(model, tmp_path / "out", "litert")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "word"}'])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match="holds no exported model"):
        runtimes.load(tmp_path)


def brought_by(*names):
    """The packages that installing these brings."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            needed = map(Requirement, metadata.requires(name) or [])
            todo += [r.name for r in needed if not r.marker or r.marker.evaluate()]
    normal = {metadata.metadata(name)["Name"] for name in found}
    return {k for k, v in metadata.packages_distributions().items() if normal & {*v}}


@pytest.mark.slow
def test_a_saved_model_needs_tensorflow_alone(saved_model, model, tmp_path):
    others = metadata.packages_distributions().keys()
    others -= brought_by("tensorflow", "tensorflow-text")
    assert {"galip_keras", "keras_hub", "tensorflow_datasets"} <= others
    alone = child.without("|".join(others))
    # The tool by itself does not know the ops of tensorflow-text.
    tool = f"""{alone}
import tensorflow_text
from tensorflow.python.tools.saved_model_cli import main
main()
"""
    out = saved_model
    run([sys.executable, "-c", alone + SERVE, out, tmp_path / "images.npy"], tmp_path)
    expected = model.generate(["a red bird", "an owl", "2 Tents"], seed=[5, 2**40, 0])
    assert differ(np.load(tmp_path / "images.npy"), expected) <= 1
    shown = run([sys.executable, "-c", tool, "show", "--all", "--dir", out], tmp_path)
    for signature in ("serving_default", "generate", "embed"):
        assert f"signature_def['{signature}']" in shown
    inputs = "prompt=[b'an owl'];seed=[3]"
    run(
        [sys.executable, "-c", tool, "run", "--dir", out, "--tag_set", "serve",
         "--signature_def", "serving_default", "--input_exprs", inputs,
         "--outdir", tmp_path],
        tmp_path,
    )  # fmt: skip
    (png,) = np.load(tmp_path / "image_bytes.npy", allow_pickle=True)
    drawn = np.asarray(Image.open(io.BytesIO(png)))
    assert differ(drawn, model.generate(["an owl"], seed=[3])[0]) <= 1


def run(command, folder):
    # Nothing of this project, and nothing of where the tests run.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
