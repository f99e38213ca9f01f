"""The wheel and the sdist: their content, and a fresh installation."""

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import extras
import pytest

import galip_keras

ROOT = pathlib.Path(__file__).parents[1]

# Packaging does not depend on the backend.
pytestmark = [pytest.mark.backend("tensorflow"), pytest.mark.slow]


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    extras.need("dev", "build")
    # Build from a copy, since building leaves folders behind.
    folder = tmp_path_factory.mktemp("source") / "main"
    left_out = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "site")
    shutil.copytree(ROOT, folder, ignore=left_out)
    run(sys.executable, "-m", "build", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def test_they_hold_the_package_and_no_tests(built):
    wheel, sdist = built
    names = zipfile.ZipFile(wheel).namelist()
    info = f"galip_keras-{galip_keras.__version__}.dist-info"
    tops = {name.split("/")[0] for name in names}
    assert tops == {"galip_cli", "galip_keras", info}
    assert "galip_keras/presets/toybirds/model.weights.h5" in names
    assert "galip_keras/serving/page.html" in names
    assert f"{info}/licenses/LICENSE" in names
    files = {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("galip_keras/**/*.py")
    }
    assert files <= set(names)
    with tarfile.open(sdist) as file:
        names = [name.partition("/")[2] for name in file.getnames()]
    assert files <= set(names)
    assert not [name for name in names if name.startswith(("tests/test_", "runs/"))]
    assert wheel.stat().st_size < 20e6


def test_twine_finds_nothing(built):
    extras.need("dev", "twine")
    result = run(sys.executable, "-m", "twine", "check", "--strict", *built)
    assert result.stdout.count("PASSED") == 2


def test_the_wheel_draws_in_an_environment_of_its_own(built, tmp_path):
    """Use the dependencies of this environment, which take minutes to install."""
    wheel, _ = built
    folder = tmp_path / "a caf\u00e9 of birds"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # The path comes after the wheel, so that the wheel's package is found first.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    galip = folder / "bin" / "galip"
    code = "import galip_keras; print(galip_keras.__file__)"
    assert run(python, "-c", code, cwd=folder).stdout.startswith(str(folder))
    result = run(galip, "sample", "a red bird", cwd=folder)
    assert result.stderr == ""
    assert (folder / result.stdout.strip()).is_file()
