"""House rules that a reader cannot be trusted to notice: who may compile, who may import what, and what import does."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.source_tree import PACKAGE_FOLDERS, PYPROJECT, ROOT, library_modules, repository_files

COMPILE_POLICY = "nbdense._compile.policy"
COMPILE_POLICIES = {COMPILE_POLICY, "nbdense.backends.cuda.device"}  # the CPU's, and that of GPUs
NUMBA_COMPILERS = {
    "cfunc",
    "generated_jit",
    "guvectorize",
    "intrinsic",
    "jit",
    "jit_module",
    "jitclass",
    "lower_builtin",
    "njit",
    "overload",
    "overload_attribute",
    "overload_classmethod",
    "overload_method",
    "register_jitable",
    "stencil",
    "vectorize",
}
# Folders that become subpackages: importable by these names only from inside the clone.
BARE_NAMES = {folder.name for package, folder in PACKAGE_FOLDERS.items() if package != folder.name}

parsed = functools.cache(ast.parse)  # most files are read by several rules


def numba_compilers_in(source: str) -> Iterator[tuple[int, str]]:
    """Lines that import a compiler from numba, or reach one through a numba module; a decorator is one or the other."""
    tree = parsed(source)
    numba_names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "numba":
                    numba_names.add(alias.asname or "numba")
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "numba":
            for alias in node.names:
                numba_names.add(alias.asname or alias.name)
                if alias.name in NUMBA_COMPILERS | {"*"}:
                    yield node.lineno, f"from {node.module} import {alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in NUMBA_COMPILERS:
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in numba_names:
                yield node.lineno, ast.unparse(node)


def bare_imports_in(source: str) -> Iterator[tuple[int, str]]:
    """Lines that import a top-level folder by its bare name instead of through nbdense."""
    for node in ast.walk(parsed(source)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            modules = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        for module in modules:
            if str(module).split(".")[0] in BARE_NAMES:
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "source",
    [
        "from numba import njit",
        "from numba import jit as fast",
        "from numba import *",
        "from numba.extending import intrinsic",
        "import numba\n@numba.njit\ndef f(): ...",
        "import numba as nb\n@nb.njit(parallel=True)\ndef f(): ...",
        "import numba.extending\n@numba.extending.intrinsic\ndef f(t): ...",
        "from numba import extending\n@extending.overload(len)\ndef f(x): ...",
        "def f():\n    from numba import cuda\n    return cuda.jit(f)",
    ],
)
def test_checker_sees_a_compiler(source):
    assert list(numba_compilers_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "from numba import prange, types",
        "import numba\nnumba.get_num_threads()",
        "from numba.core import cgutils",
        "from nbdense._compile.policy import njit\n@njit\ndef f(): ...",
        "from . import _jit\n@_jit.njit\ndef f(): ...",
    ],
)
def test_checker_lets_the_rest_pass(source):
    assert not list(numba_compilers_in(source))


@pytest.mark.parametrize(
    "source",
    ["import {}", "import {}.prune as p", "from {} import x", "from {}.onnx import x", "import_module('{}.x')"],
)
def test_checker_sees_a_bare_import(source):
    for name in BARE_NAMES:
        assert list(bare_imports_in(source.format(name)))
        assert not list(bare_imports_in(source.format(f"nbdense.{name}")))


def test_only_the_compile_policy_compiles():
    modules = library_modules()
    assert set(modules) >= COMPILE_POLICIES
    offences = [
        f"{path.relative_to(ROOT)}:{line}: {what}: take it from {COMPILE_POLICY}"
        for module, path in modules.items()
        if module not in COMPILE_POLICIES
        for line, what in numba_compilers_in(path.read_text(encoding="utf-8"))
    ]
    assert not offences, "\n".join(offences)


def test_subpackages_are_imported_through_nbdense():
    assert {"quant", "export"} == BARE_NAMES
    offences = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in repository_files()
        if path.suffix == ".py"
        for line, what in bare_imports_in(path.read_text(encoding="utf-8"))
    ]
    assert not offences, "\n".join(offences)


def test_modules_take_no_private_names_of_others():
    """A name with an underscore is its module's own. Which modules may import which: see tests/policy/test_wheel.py."""
    offences = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in library_modules().values()
        for node in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("nbdense.")
        and any(re.match("_[^_]", alias.name) for alias in node.names)
    ]
    assert not offences, "\n".join(offences)


def functions_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of functions and their lines, docstrings apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            said = ast.get_docstring(node) is not None
            yield node.name, node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if said else 0)


@pytest.mark.parametrize(
    "root", [*PACKAGE_FOLDERS.values(), ROOT / "benchmarks", ROOT / "tests"], ids=lambda root: root.name
)
def test_rooms_files_and_functions_are_small(root):
    files = sorted(root.rglob("*.py"))
    assert files
    rooms = Counter(file.parent for file in files if file.name != "__init__.py")
    assert {str(room.relative_to(ROOT)): count for room, count in rooms.items() if count > 14} == {}
    texts = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}
    assert {name: text.count("\n") for name, text in texts.items() if text.count("\n") > 500} == {}
    functions = {f"{name}::{f}": lines for name, text in texts.items() for f, lines in functions_in(parsed(text))}
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}


def test_first_lines_of_docstrings_say_something():
    """A verb and its object, or a noun: no question, and no "Of its tensors."."""
    odd = re.compile(r"(What|Whether|Where|Which|How|That|Of)\b")
    offences = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {docstring.splitlines()[0]}"
        for path in repository_files()
        if path.suffix == ".py"
        for node in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and (docstring := ast.get_docstring(node)) is not None
        and odd.match(docstring)
    ]
    assert not offences, "\n".join(offences)


# Of a kind of layer and of a scheme of quantization, the library's sources that name it, `__init__`s aside.
# CONTRIBUTING.md counts them.
ONE_MODULE = {
    "layer normalization": (
        r"layer[ _-]?norm",
        {
            "nbdense/engine/rows/layer_norm.py",  # what is compiled
            "nbdense/layers/layer_normalization.py",  # the layer; its form in quantized networks and in ONNX files
            "nbdense/engine/rows/rms_norm.py",  # shares what is compiled
            "nbdense/runtime/floats.py",  # what predicts by NumPy alone imports none of these
            "nbdense/runtime/sequential.py",
            "nbdense/runtime/quantized.py",  # where it was left in float
            "nbdense/estimators/networks.py",  # estimators have it as a parameter
            "nbdense/estimators/classifier.py",
            "nbdense/estimators/regressor.py",
        },
    ),
    "weight-only quantization": (
        r"weight[ _-]?only",
        {
            "quant/schemes/weight_only.py",  # the scheme and its layer
            "quant/schemes/table.py",  # the list of schemes
            "export/write/weight_only_flavour.py",  # its ONNX form, for training and quantizing need no onnx
            "export/write/exporter.py",  # the list of flavours
            "export/write/dynamic_flavour.py",  # flavours take the writers of the one before
            "export/read/quantized.py",  # foreign graphs, which nothing but their integers tells from other schemes'
            "quant/quantization.py",  # users' documentation
            "export/api.py",
            "nbdense/commands/warmup.py",  # users
            "nbdense/commands/interface/quantize.py",
            "nbdense/runtime/quantized.py",  # what predicts by NumPy alone reads the layer too
        },
    ),
}


@pytest.mark.parametrize("thing", ONE_MODULE)
def test_a_thing_is_named_where_it_is(thing):
    pattern, expected = ONE_MODULE[thing]
    naming = {
        path.relative_to(ROOT).as_posix()
        for path in library_modules().values()
        if path.name != "__init__.py" and re.search(pattern, path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    assert naming == expected


def test_no_path_or_host_of_one_machine():
    pattern = re.compile(r"(?<![\w.])/(?:work|home|root|opt|Users)/|py[p]i\.org|pythonhoste[d]|(?:extra-)?index-ur[l]")
    offences = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in repository_files()
        if path.suffix in {"", ".cfg", ".ini", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not offences, "\n".join(offences)


LEAN_IMPORT = """
import json, os, sys, threading
import numba, numpy
from numba.core.event import install_recorder
from numba.np.ufunc import parallel

def state():
    return {
        "environment": dict(os.environ),
        "numba's settings": repr({key: value for key, value in vars(numba.config).items() if key.isupper()}),
        "random numbers": numpy.random.get_state()[1].tolist(),
        "threads": [threading.active_count(), parallel._is_initialized],
    }

before = state()
with install_recorder("numba:compile") as compilations:
    import nbdense
after = state()
print(json.dumps({
    "modules": sorted(sys.modules),
    "compilations": len(compilations.buffer),
    "changed": [what for what in before if before[what] != after[what]],
}))
"""


def test_import_does_nothing(tmp_path):
    """Rule 8: no compilation, no thread, no setting, no file, no heavy module."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAN_IMPORT],
        cwd=tmp_path,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    found = json.loads(run.stdout)
    optional = {"jax", "keras", "matplotlib", "numba.cuda", "onnx", "onnxruntime", "sklearn", "torch"}
    assert sorted(optional.intersection(found["modules"])) == []
    assert not found["changed"]
    assert not found["compilations"]
    assert not list(tmp_path.iterdir()), "import wrote something"


PIN = re.compile(r"([a-z0-9-]+)==[0-9][a-z0-9.+]*( ; [^/@]+)?")


def required(extra):
    """Names of the packages that an extra brings, nbdense's own extras followed."""
    for line in PYPROJECT["project"]["optional-dependencies"][extra]:
        name, others = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?.*", line.split("#")[0]).groups()
        if name != "nbdense":
            yield name.lower().replace("_", "-")
        for other in (others or "").split(",") if name == "nbdense" else ():
            yield from required(other)


def test_constraints_pin_all_that_the_tests_install():
    """By names and versions alone: no address, no hash. `make constraints` writes them."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    pinned = {PIN.fullmatch(line)[1] for line in lines}
    core = {re.match(r"[\w-]+", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    assert core | set(required("test")) <= pinned
