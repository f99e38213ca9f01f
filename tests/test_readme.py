"""Runs the commands of the README and of docs/editing.md as they are written.

`.ci/run` trains the real `galip_tiny` by them, in an environment of its own.
"""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import extras
import pytest
from marks import slow_on_torch
from service import free_port, served

from galip_cli.main import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(language, text=README):
    """The code blocks of a language. Shell blocks have one command per line."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder like the repository's root, with the examples and without runs."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


def run(command, folder):
    path = pathlib.Path(sys.executable).parent
    result = subprocess.run(
        ["bash", "-c", f'PATH="{path}:$PATH"; {command}'],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_installing_is_what_pyproject_offers():
    """Installing would change this environment: `.ci/run` does it in its own."""
    assert len(re.findall(r"^pip install .+ && ", README, re.M)) == 2
    pyproject = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"\[(\w+)\]\"", README):
        assert f"\n{extra} = [" in pyproject
    assert "'^pip install .+ && ' README.md" in (ROOT / ".ci" / "run").read_text()


def serve(command):
    """Start the service and request a page and an image."""
    import httpx

    with served(free_port(), *shlex.split(command)[2:]) as (_, address):
        for path in ("/", "/image?prompt=a"):
            assert httpx.get(f"{address}{path}").status_code == 200


def call(command, galip):
    """Run a command in this process, where the libraries are loaded already."""
    code, output, errors = galip(*shlex.split(command)[1:])
    assert code == 0, errors
    return output


def push(command, galip, hubs):
    output = call(command, galip)
    assert (hubs(output.strip().removeprefix("hf://")) / "config.json").is_file()


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@pytest.mark.usefixtures("less_to_compile")
def test_every_shell_command_and_the_python_example(folder, galip, hubs, monkeypatch):
    authors = extras.need("torch", "authors")
    clip_state = authors.state(authors.clip_shapes(), 0)
    authors.write(folder, authors.checkpoint(clip_state), clip_state)
    monkeypatch.chdir(folder)
    ran = []
    for block in commands("sh"):
        for line in block.strip().splitlines():
            for command in line.split(" && "):
                if not command.startswith("galip "):
                    assert command in (
                        "pip install .",
                        'pip install -e ".[test]"',
                        "pytest",
                    )
                    continue
                if command.startswith("galip serve "):
                    serve(command)
                elif command.startswith("galip push "):
                    push(command, galip, hubs)
                else:
                    call(command, galip)
                ran.append(command.split()[1])
    assert set(ran) == set(COMMANDS)
    assert (folder / "sheets" / "shapes.png").exists()
    assert len(list((folder / "out").glob("*.png"))) == 9
    assert (folder / "report" / "curves.png").exists()
    (example,) = commands("python")
    exec(example, {})
    assert (folder / "my_galip" / "config.json").exists()


def test_completion_is_what_the_readme_says(folder):
    (line,) = re.findall(r"`(eval \"[^`]*)`", README)
    script = f"{line}; type _galip_completion"
    assert "_GALIP_COMPLETE=bash_complete" in run(script, folder)
    ask = "_GALIP_COMPLETE=bash_complete COMP_WORDS='galip {}' COMP_CWORD=1 galip"
    assert run(ask.format("sam"), folder).strip() == "plain,sample"
    assert len(run(ask.format(""), folder).split()) == len(COMMANDS)


def test_it_is_short():
    assert len(README.splitlines()) < 250


@slow_on_torch
def test_what_docs_editing_shows(folder, galip, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    text = (ROOT / "docs" / "editing.md").read_text()
    for command in "".join(commands("sh", text)).splitlines():
        # What is found is for the eye.
        command = command.replace("--steps 200", "--steps 20")
        paths = call(command, galip).splitlines()
        assert paths
        assert all((folder / path).is_file() for path in paths)
    (example,) = commands("python", text)
    exec(example, {})
    error, similarity = capfd.readouterr().out.split()
    assert 0 < float(error) < 255
    assert -1 <= float(similarity) <= 1
    for path in re.findall(r"\]\((pictures/.*?)\)", text):
        assert (ROOT / "docs" / path).is_file()


def test_python_version_is_what_pyproject_says():
    assert 'requires-python = ">=3.10,<3.14"' in (ROOT / "pyproject.toml").read_text()
    assert "Python 3.10 to 3.13" in README
