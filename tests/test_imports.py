"""The floor plan: data flows one way, each library is imported in its rooms only."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From the foundation of the house to its roof: a module imports from its own package,
# and from the floors below.
FLOORS = [
    {"files", "console", "images", "_moved", "backend"},
    {"models"},
    {"presets", "datasets"},
    {"convert", "export"},
    {"metrics"},
    {"sampling", "training"},
    {"serving"},
]
ROOMS = {
    "tensorflow": {
        "backend/tensorflow.py",
        "datasets",
        "export/writers.py",
        "serving/rpc.py",
    },
    "tensorflow_datasets": {"datasets"},
    "tensorflow_text": {"export"},
    "jax": {"backend/jax.py"},
    "torch": {"backend/torch.py", "convert/pytorch.py"},
}
# Loaded when they are called: prompts in a graph, a SavedModel, GPUs to be hidden.
LAZY = {
    ("models/prompts.py", "tensorflow"),
    ("export/runtimes.py", "tensorflow"),
    ("backend/common.py", "tensorflow"),
}


def floor_of(package):
    (number,) = (i for i, floor in enumerate(FLOORS) if package in floor)
    return number


def python_files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path):
    """`(module, at the top of the file?)` of every import, `if TYPE_CHECKING` aside."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports here are absolute"
            modules = [node.module]
            if node.module == "galip_keras":
                modules = [f"galip_keras.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            yield module, node.col_offset == 0


@pytest.mark.parametrize(
    "path", python_files("galip_keras"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_module_imports_from_below_only(path):
    place = path.relative_to(ROOT / "galip_keras").as_posix()
    floor = place.split("/")[0].removesuffix(".py")
    for module, _ in imports(path):
        top, *rest = module.split(".")
        assert top not in ("cli", "galip_cli"), f"{place} imports the command line"
        if place == "__init__.py":
            assert top != "galip_keras" or rest == ["_moved"]
        elif top == "galip_keras" and rest and not rest[0].startswith("__"):
            assert rest[0] == floor or floor_of(rest[0]) < floor_of(floor), (
                f"{place} imports {module}, which is not below it"
            )


@pytest.mark.parametrize(
    "path",
    python_files("galip_keras") + python_files("cli"),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_each_library_stays_in_its_rooms(path):
    place = path.relative_to(ROOT).as_posix().removeprefix("galip_keras/")
    for module, at_top in imports(path):
        library = module.split(".")[0]
        allowed = ROOMS.get(library)
        if allowed is None or place in allowed or place.split("/")[0] in allowed:
            continue
        assert (place, library) in LAZY, f"{place} imports {library}"
        assert not at_top, f"{place} imports {library} before it is needed"


@pytest.mark.parametrize("name", ["tensorflow", "jax", "torch"])
def test_a_backend_is_under_two_hundred_lines(name):
    path = ROOT / "galip_keras" / "backend" / f"{name}.py"
    assert len(path.read_text().splitlines()) < 200


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, galip_keras; dir(galip_keras); galip_keras.__version__; "
        "print([m for m in ('keras', 'numpy', 'tensorflow') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_public_names_exist():
    import galip_keras

    for name in galip_keras.__all__:
        assert getattr(galip_keras, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = galip_keras.Nothing
