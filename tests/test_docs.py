"""Everything in the documentation works: examples, commands, links, the site."""

import ast
import contextlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import click
import extras
import keras
import numpy as np
import pytest
from drawn import draw_circles
from marks import export_on_tensorflow, slow_on_torch

import galip_keras
from galip_cli.main import galip as group

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [name for name in galip_keras.__all__ if name != "__version__"]


def blocks(text):
    """The code blocks of a Markdown page."""
    return re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def sources(notebook, kind):
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(x["source"]) for x in cells if x["cell_type"] == kind]


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """A working folder that contains a folder of images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    draw_circles(tmp_path / "birds")


@slow_on_torch
@pytest.mark.usefixtures("birds")
def test_the_example_of_docs_evaluation(capsys):
    (example,) = python_blocks((ROOT / "docs" / "evaluation.md").read_text())
    exec(example, {})
    assert capsys.readouterr().out.startswith("fid ")


@slow_on_torch
@pytest.mark.usefixtures("birds", "less_to_compile")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name(name):
    doc = getattr(galip_keras, name).__doc__
    (example,) = [x for x in blocks(doc) if "galip_keras" in x]
    example = "\n".join(line.removeprefix("    ") for line in example.splitlines())
    names = {"galip_keras": galip_keras, "keras": keras, "np": np}
    exec(compile(example, name, "exec"), names)
    for statement in ast.parse(example).body:
        line = example.splitlines()[statement.end_lineno - 1]
        shape = re.search(r"# \(([\d, ]+)\)$", line)
        if shape:
            value = eval(ast.unparse(statement), names)
            expected = tuple(int(x) for x in shape[1].split(",") if x.strip())
            assert tuple(value.shape) == expected, line


def test_public_docstrings_say_what_goes_in_and_out():
    for name in NAMES:
        doc = getattr(galip_keras, name).__doc__
        assert "Args:" in doc, name
        # Classes without a call have an example instead.
        assert re.search(r"Returns:|Call arguments:|Example:", doc), name


def commands():
    texts = [(page.name, page.read_text()) for page in PAGES]
    for name, text in texts:
        for block in blocks(text):
            block = block.replace("\\\n", " ")
            for line in block.splitlines():
                for part in re.split(r" && | \| ", line.strip()):
                    if part.startswith("galip "):
                        yield name, part
    for notebook in NOTEBOOKS:
        for source in sources(notebook, "code"):
            for line in source.splitlines():
                if line.strip().startswith("!galip "):
                    yield notebook.name, line.strip()[1:].partition(" | ")[0]
    for command in group.list_commands(None):
        doc = group.get_command(None, command).help
        for line in doc.replace("\\\n", "").splitlines():
            if line.strip().startswith("galip "):
                yield command, line.strip()


class Missing(Exception):
    pass


@pytest.fixture
def files_are_missing(monkeypatch):
    def convert(self, value, param, ctx):
        raise Missing

    monkeypatch.setattr(click.Path, "convert", convert)


@pytest.mark.usefixtures("files_are_missing")
@pytest.mark.parametrize(("place", "command"), sorted(set(commands())))
def test_a_documented_command_is_valid(place, command):
    words = shlex.split(command, comments=True)[1:]
    words = words[: words.index("&")] if "&" in words else words
    # A placeholder may stand for a number.
    words = [re.sub(r"\$\{?\w+\}?|\{\w+\}", "1", word) for word in words]
    context, found = None, group
    while isinstance(found, click.Group):
        context = found.make_context(found.name, list(words), parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        _, found, words = found.resolve_command(context, rest)
    if "--help" not in words:
        # The files of the reader do not exist here.
        with contextlib.suppress(Missing):
            found.make_context(found.name, list(words), parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            titles = [re.sub(r"[^\w -]", "", title).lower() for title in titles]
            assert anchor in [title.replace(" ", "-") for title in titles], link


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_the_site_is_built_without_a_warning(tmp_path):
    extras.need("dev", "mkdocs", "mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "GALIPTextToImage" in (tmp_path / "api" / "index.html").read_text()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_and_has_run(notebook):
    code = "\n".join(sources(notebook, "code"))
    assert not re.search(r"\b(\w+\._[a-z]\w*|import _)", code)
    assert "%pip install" in sources(notebook, "code")[0]
    cells = json.loads(notebook.read_text())["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)
    assert notebook.stat().st_size < 2_000_000
    text = notebook.read_text()
    assert not re.search(r"/(home|root|work|tmp)/", text)


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize(
    "notebook", [export_on_tensorflow(path, path.stem) for path in NOTEBOOKS]
)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    nbclient = extras.need("dev", "ipykernel", "nbclient")
    import nbformat

    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(notebook, folder)
    if notebook.stem == "released_weights":
        # Files with the layout of the authors'.
        authors = extras.need("torch", "authors")
        clip_state = authors.state(authors.clip_shapes(), 0)
        authors.write(folder, authors.checkpoint(clip_state), clip_state)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    path = pathlib.Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(path), prepend=":")
    cells = nbformat.read(folder / notebook.name, as_version=4)
    for cell in cells["cells"]:
        # The stored outputs show the images of the full number of steps.
        cell["source"] = re.sub(r"\bsteps=\d+", "steps=4", cell["source"])
        cell["source"] = cell["source"].replace("sample_every=50", "sample_every=2")
    place = {"metadata": {"path": folder}}
    nbclient.NotebookClient(cells, timeout=600, resources=place).execute()
