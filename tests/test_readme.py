"""The commands of the README and of docs/editing.md, run as they stand there."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from galip_cli.main import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(language, text=README):
    """The code blocks of a language, one command of a shell block a line."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place like the repository's root, with the examples and no runs."""
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
    """Installation itself is `.ci/run`'s: here it would change the environment."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    for extra in re.findall(r"\[(\w+)\]\"", README):
        assert f"\n{extra} = [" in pyproject
    assert "KERAS_BACKEND=$backend pytest\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_every_shell_command_and_the_python_example(folder):
    ran = []
    for block in commands("sh"):
        for line in block.strip().splitlines():
            for command in line.split(" && "):
                if command.startswith("galip "):
                    run(command, folder)
                    ran.append(command)
                else:
                    assert command in (
                        "pip install .",
                        'pip install -e ".[test]"',
                        "pytest",
                    )
    not_here = {"convert", "push", "serve"}
    assert {c.split()[1] for c in ran} == set(COMMANDS) - not_here
    assert (folder / "sheets" / "shapes.png").exists()
    assert len(list((folder / "out").glob("*.png"))) == 9
    assert (folder / "report" / "curves.png").exists()
    (example,) = commands("python")
    (folder / "example.py").write_text(example)
    run("python example.py", folder)
    assert (folder / "my_galip" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_what_docs_editing_shows(folder):
    text = (ROOT / "docs" / "editing.md").read_text()
    for command in "".join(commands("sh", text)).splitlines():
        paths = run(command, folder).splitlines()
        assert paths
        assert all((folder / path).is_file() for path in paths)
    (example,) = commands("python", text)
    (folder / "example.py").write_text(example)
    error, similarity = run("python example.py", folder).split()
    assert 0 < float(error) < 255
    assert -1 <= float(similarity) <= 1
    for picture in re.findall(r"\]\((pictures/.*?)\)", text):
        assert (ROOT / "docs" / picture).is_file()


def test_python_version_is_what_pyproject_says():
    assert 'requires-python = ">=3.10,<3.14"' in (ROOT / "pyproject.toml").read_text()
    assert "Python 3.10 to 3.13" in README
