"""The rules of the house: who imports whom, and how large things may become."""

import ast
import pathlib
import re
import subprocess
import sys

import child
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From the ground up: a module imports from its own package and from the floors below.
FLOORS = [
    {
        "files",
        "console",
        "images",
        "processor",
        "downloads",
        "_moved",
        "_registration",
        "backend",
    },
    {"models"},
    {"presets", "datasets"},
    {"convert", "export"},
    {"metrics"},
    {"sampling", "training"},
    {"serving"},
]
# These import nothing of ours, so the others on the ground floor may import them.
ALONE = {"files", "console", "processor"}
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


# Test modules with a model that CI runs on TensorFlow alone.
ONE_BACKEND = {
    "convert/test_formats.py": "files hold the same tensors",
    "convert/test_released_names.py": "files are fetched, which have the same content",
    "datasets/test_embeddings.py": "a model that is made elsewhere embeds captions",
    "export/test_writers.py": "TensorFlow exports, whatever trained the model",
    "models/test_fidelity.py": "it compares arrays",
    "models/test_prompts.py": "token ids come from the tokenizer",
    "presets/test_push.py": "files go to a hub and come back",
    "serving/test_signatures.py": "the service calls a model that is made elsewhere",
    "serving/test_service.py": "the service draws from a model that is made elsewhere",
    "test_examples.py": "they start processes on the backend that they are about",
    "test_without_tensorflow.py": "it starts processes on the other backends",
    "training/test_config.py": "it needs the architectures' names alone",
}


def floor_of(package):
    (number,) = (i for i, floor in enumerate(FLOORS) if package in floor)
    return number


def python_files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path):
    """Yield `(module, is_at_top)` for every import, except under `TYPE_CHECKING`."""
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


def test_there_are_seven_floors_at_most():
    assert len(FLOORS) <= 7


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
            assert top != "galip_keras" or rest in (
                ["_moved"],
                ["_registration"],
                ["console"],
            )
        elif top == "galip_keras" and rest and not rest[0].startswith("__"):
            is_below = floor_of(rest[0]) < floor_of(floor)
            is_below |= rest[0] in ALONE and floor not in ALONE
            assert rest[0] == floor or is_below, (
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


# A command that is shown to the user: `galip` on a line of its own, or img2dataset at
# the end of a text, with nothing but options and their values.
COMMAND = re.compile(
    r'^galip \w+( "[^"]*")?( --[a-z-]+ \S+)+$|\bimg2dataset( --\w+ \S+)+$', re.MULTILINE
)
MOST_PARAMETERS = 8
MOST_LINES = 400


def needs_a_model(path):
    """Whether a test module imports the backend or a model, or a helper that does."""
    helpers = {path.stem: path for path in (ROOT / "tests").glob("*.py")}
    return any(
        (name in helpers and needs_a_model(helpers[name]))
        or name.startswith(("galip_keras.backend", "galip_keras.models"))
        or re.fullmatch(r"galip_keras\.(GALIP|Mate|FrozenCLIP)\w*", name)
        for name, _ in imports(path)
    )


def runs_on_every_backend(path):
    """Whether a module says so of all its tests."""
    return any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and "mark.every_backend" in ast.unparse(node.value)
        for node in ast.parse(path.read_text()).body
    )


def test_ci_runs_every_test_of_a_model_on_every_backend():
    left_out = {
        path.relative_to(ROOT / "tests").as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if needs_a_model(path) and not runs_on_every_backend(path)
    }
    assert left_out == ONE_BACKEND.keys()


def texts(tree):
    """The texts of a module, docstrings too, with `{}` for what is filled in."""
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner.update(ast.walk(node))
            parts = [getattr(x, "value", None) for x in node.values]
            yield "".join(x if isinstance(x, str) else "{}" for x in parts)
        elif isinstance(node, ast.Constant) and node not in inner:
            yield str(node.value)


def options_named(tree):
    """Options of the command line that a module's texts name."""
    for text in texts(tree):
        yield from re.findall(r"(?<![\w-])--[a-z][\w-]*", COMMAND.sub("", text))


def backend_branches(tree):
    """Where a module asks for the name of the backend.

    It may report the name, as a value in a dict, and do nothing else with it.
    """
    reported = {
        value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for value in node.values
    }
    for node in ast.walk(tree):
        text = ast.unparse(node)
        is_call = isinstance(node, ast.Call) and text.split(".")[-1] == "backend()"
        is_variable = isinstance(node, ast.Constant) and node.value == "KERAS_BACKEND"
        if node not in reported and (is_call or is_variable):
            yield text


def long_signatures(tree):
    """Functions with too many parameters, constructors and click commands aside."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        is_command = any(".command" in ast.unparse(x) for x in node.decorator_list)
        names = [x.arg for x in (*node.args.posonlyargs, *node.args.args)]
        names += [x.arg for x in node.args.kwonlyargs]
        count = len([name for name in names if name not in ("self", "cls")])
        if count > MOST_PARAMETERS and node.name != "__init__" and not is_command:
            yield f"{node.name} has {count} parameters"


def missing_annotations(tree):
    """Public functions and methods with a parameter or a result without a type."""
    for node in tree.body:
        is_special = getattr(node, "name", "").startswith("__")
        if getattr(node, "name", "_").startswith("_") and not is_special:
            continue
        if isinstance(node, ast.ClassDef):
            yield from missing_annotations(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            every = node.args
            names = [*every.posonlyargs, *every.args, *every.kwonlyargs]
            names += [x for x in (every.vararg, every.kwarg) if x is not None]
            if isinstance(tree, ast.ClassDef) and not is_static(node):
                names = names[1:]
            untyped = [x.arg for x in names if x.annotation is None]
            untyped += ["return"] if node.returns is None else []
            yield from (f"{node.name}: no type of {name}" for name in untyped)


def is_static(node):
    return any(ast.unparse(x) == "staticmethod" for x in node.decorator_list)


def check(rule, path):
    assert list(rule(ast.parse(path.read_text()))) == []


PACKAGE = pytest.mark.parametrize(
    "path", python_files("galip_keras"), ids=lambda p: str(p.relative_to(ROOT))
)
EVERYWHERE = pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("galip_keras", "cli", "examples", "benchmarks")
        for path in python_files(folder)
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)


@PACKAGE
def test_the_package_names_arguments_and_not_options(path):
    check(options_named, path)


@PACKAGE
def test_branches_on_the_backend_are_in_backend_alone(path):
    if path.parent.name != "backend":
        check(backend_branches, path)


@PACKAGE
def test_everything_public_has_types(path):
    check(missing_annotations, path)


@EVERYWHERE
def test_functions_take_few_parameters(path):
    check(long_signatures, path)


@EVERYWHERE
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (options_named, 'raise ValueError("give --run")'),
        (options_named, 'raise ValueError(f"{x} is lost: resume with --resume")'),
        (options_named, '"galip train --resume goes on"'),
        (options_named, '"""img2dataset wrote it, give --data-dir."""'),
        (backend_branches, 'if keras.backend.backend() == "jax": pass'),
        (backend_branches, "name = keras.config.backend()"),
        (backend_branches, "from keras.backend import backend; backend() in x"),
        (backend_branches, 'os.environ["KERAS_BACKEND"] == "jax"'),
        (long_signatures, "def f(a, b, c, d, e, *, f, g, h, i): pass"),
        (missing_annotations, "def f(a, b: int) -> int: pass"),
        (missing_annotations, "async def f(*, a: int, **kwargs) -> int: pass"),
        (missing_annotations, "class A:\n    def __init__(self, a: int): pass"),
        (missing_annotations, "class A:\n    def f(self, *args) -> int: pass"),
    ],
)
def test_a_broken_rule_is_noticed(rule, source):
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (options_named, "f'galip sample \"a bird\" --model {x}'"),
        (options_named, 'f"fetch it first: img2dataset --url_list {x} --size 3"'),
        (backend_branches, 'facts = {"backend": keras.backend.backend()}'),
        (long_signatures, "def __init__(self, a, b, c, d, e, f, g, h, i): pass"),
        (long_signatures, "@click.command()\ndef x(a, b, c, d, e, f, g, h, i): pass"),
        (missing_annotations, "def f(a: int) -> int:\n    def inner(b): pass"),
        (missing_annotations, "class A:\n    def f(self, a: int) -> int: pass"),
        (missing_annotations, "class _A:\n    def f(self, a): pass"),
    ],
)
def test_what_the_rules_allow(rule, source):
    assert list(rule(ast.parse(source))) == []


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


FROM_PRESET = """
import sys
model = keras_hub.models.TextToImage.from_preset(sys.argv[1])
assert type(model) is galip_keras.GALIPTextToImage
"""


@pytest.mark.parametrize("first", ["galip_keras", "keras_hub"])
def test_keras_hub_loads_the_bundled_preset(first):
    """In a process that imports nothing of ours but the package itself."""
    second = {"galip_keras", "keras_hub"} - {first}
    script = f"import {first}, {second.pop()}\n{FROM_PRESET}"
    child.run(script, ROOT / "galip_keras" / "presets" / "toybirds")
