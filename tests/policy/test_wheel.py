"""The wheel that a user installs: built from the sdist, checked, typed and imported outside the clone."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import nbdense as nb
from tests.support.source_tree import PACKAGE_FOLDERS, PYPROJECT, ROOT, library_modules, repository_files


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A copy, so that no litter is left and a stale build/ cannot leak into the wheel."""
    copy = tmp_path_factory.mktemp("clone")
    for path in repository_files():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return copy


@pytest.fixture(scope="session")
def dist(clone, tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, cwd=clone)
    return dist


@pytest.fixture(scope="session")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def runtime_wheel(clone, tmp_path_factory):
    """The distribution that predicts alone, of the same tree."""
    dist = tmp_path_factory.mktemp("runtime_dist")
    where = clone / "packaging" / "runtime"
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", dist, where, cwd=clone)
    (path,) = dist.glob("*.whl")
    return path


def installed(wheel, folder):
    """A folder with nothing but an installed wheel in it."""
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel),
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="session")
def site(wheel, tmp_path_factory):
    return installed(wheel, tmp_path_factory.mktemp("site"))


def test_sdist_holds_the_tree(dist):
    """Tests run and docs build from it."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in names if name in {"PKG-INFO", "setup.cfg"} or name.startswith("nbdense.egg-info/")}
    tree = {path.relative_to(ROOT).as_posix() for path in repository_files()}
    expected = {name for name in tree if not name.startswith(".")}  # git's and the host's
    # A new folder must be named in MANIFEST.in.
    assert (expected - names, names - made - expected) == (set(), set())


def test_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {"nbdense/py.typed"}
    for package, folder in PACKAGE_FOLDERS.items():
        for path in folder.rglob("*.py"):
            expected.add("/".join([*package.split("."), *path.relative_to(folder).parts]))
    # A new subpackage must be named in pyproject.toml, under tool.setuptools.packages.
    assert (expected - names, names - expected) == (set(), set())


RUNTIME = ["__init__", "_version", "_warn", "compression", "files"]  # what it has beside its own room


def test_runtime_wheel_holds_what_predicts_and_nothing_else(runtime_wheel):
    with zipfile.ZipFile(runtime_wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        texts = {
            name.split(".dist-info/")[1]: archive.read(name) for name in archive.namelist() if ".dist-info/" in name
        }
    modules = {f"nbdense/runtime/{path.name}" for path in (PACKAGE_FOLDERS["nbdense"] / "runtime").glob("*.py")}
    assert names == {f"nbdense/{name}.py" for name in RUNTIME} | modules
    assert runtime_wheel.stat().st_size < 100_000
    metadata = texts["METADATA"].decode()
    assert re.findall(r"^Requires-Dist: ([a-z]+)", metadata, re.MULTILINE) == ["numpy", "safetensors"]
    assert texts["licenses/LICENSE"].decode() == (ROOT / "LICENSE").read_text(encoding="utf-8")


# With a finder that has nothing but this, NumPy and safetensors: all else is as if it were not installed.
PREDICT = """
import importlib.abc, json, sys
site, *files = sys.argv[1:]
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numba", "llvmlite", "onnx", "onnxruntime", "tqdm", "sklearn", "flatbuffers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, site)
import numpy as np
from nbdense import runtime
assert runtime.__file__.startswith(site), runtime.__file__
x = np.load(files[-1])
for file in files[:-1]:
    model = runtime.load_model(file + ".nbd")
    np.testing.assert_allclose(model.predict(x), np.load(file + ".npy"), rtol=1e-5, atol=1e-5)
    if file.endswith("8") or file.endswith("4"):
        np.testing.assert_array_equal(model.predict_integers(x), np.load(file + "_integers.npy"))
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "nbdense")
print(json.dumps(loaded))
"""


def test_runtime_predicts_where_there_is_nothing_else(runtime_wheel, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    installed(runtime_wheel, folder)
    x = np.random.default_rng(1).normal(size=(1000, 12)).astype(np.float32)
    model = nb.Sequential([nb.Input((12,)), nb.Dense(20, "relu"), nb.Dense(9, "tanh"), nb.Dense(3, "softmax")])
    models = {"float": model}
    models |= {f"int{bits}": nb.quantize(model, x, bits=bits, rounding="tflite") for bits in (8, 4)}
    for name, made in models.items():
        made.save(tmp_path / f"{name}.nbd")
        np.save(tmp_path / name, made.predict(x))
        if name != "float":
            np.save(tmp_path / f"{name}_integers", made.predict_integers(x))
    np.save(tmp_path / "x.npy", x)
    files = [tmp_path / name for name in models]
    said = run(sys.executable, "-I", "-W", "error", "-c", PREDICT, folder, *files, tmp_path / "x.npy", cwd=tmp_path)
    loaded = set(json.loads(said))
    assert loaded == {f"nbdense.{name}".removesuffix(".__init__") for name in RUNTIME} | {
        name for name in library_modules() if name.startswith("nbdense.runtime")
    }


def test_every_package_folder_is_a_package():
    # A folder without __init__.py would be a namespace package in the clone and missing from the wheel.
    folders = {path.parent for path in library_modules().values()}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def test_wheel_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" in name]
        texts = {name.split(".dist-info/")[1]: archive.read(name).decode() for name in names}
    assert "nbdense = nbdense.commands.cli:main" in texts["entry_points.txt"]
    assert "License-Expression: BSD-3-Clause" in texts["METADATA"]
    assert texts["licenses/LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")


IMPORT_ALL = """
import importlib, importlib.metadata, pathlib, sys
site, *modules = sys.argv[1:]
sys.path.insert(0, site)  # before the editable install, which a finder at the end of sys.meta_path serves
for name in modules:
    file = pathlib.Path(importlib.import_module(name).__file__)
    assert file.is_relative_to(site), f"{name} came from {file}"
import nbdense
assert nbdense.__version__ == importlib.metadata.version("nbdense"), nbdense.__version__
for name in ("quant", "export"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"import {name} works: it must only be nbdense.{name}")
(entry,) = (e for e in importlib.metadata.distribution("nbdense").entry_points if e.name == "nbdense")
assert callable(entry.load())
"""


def test_without_any_extra(site, tmp_path):
    """`make check-dist` tries the same in an environment in which nothing has to be hidden."""
    script = ROOT / "packaging" / "try_installed.py"
    said = run(sys.executable, "-I", "-W", "error", script, site, cwd=tmp_path)
    assert f"nbdense {nb.__version__} in {site}" in said


def test_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said = dict(re.findall(r"^ *(?:- )?([a-z-]+): (\S.*)$", text, re.MULTILINE))
    project = PYPROJECT["project"]
    assert said["version"] == nb.__version__ and said["cff-version"] == "1.2.0"
    assert (said["title"], said["license"]) == (project["name"], project["license"])
    assert {"name": said["name"]} in project["authors"]


def test_installed_wheel_imports(site):
    modules = [name for name in library_modules() if not name.endswith("__main__")]
    run(sys.executable, "-I", "-W", "error", "-c", IMPORT_ALL, site, *modules, cwd=site)


LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def contracts(folder):
    """Run import-linter on the library installed in a folder; returns its exit status and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", LINT_IMPORTS, "--no-cache", str(ROOT / "pyproject.toml")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_imports_run_downwards(site):
    """Between the rooms as pyproject.toml says, and in no circle anywhere, imports for type checkers included."""
    status, said = contracts(site)
    assert status == 0, said
    analyzed = int(re.search(r"Analyzed (\d+) files", said)[1])
    assert analyzed == len(library_modules()), "the library that was looked at is not the whole of it"


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        ("engine/tables.py", "from nbdense.network import Network", ["Imports run downwards", "BROKEN"]),
        ("quant/model/model.py", "from nbdense.export import to_onnx", ["nbdense.quant.model.model"]),
        ("quant/kernels/tables.py", "from nbdense import backends", ["Imports run downwards", "BROKEN"]),
        ("training/loop.py", "from nbdense.engine import program", ["run by backends alone BROKEN"]),
        ("quant/layers/layout.py", "from nbdense.quant.kernels import integer", ["run by backends alone BROKEN"]),
        ("quant/model/program.py", "from nbdense._compile import thread_pool", ["borrowed by backends alone BROKEN"]),
        ("models/stack.py", "from nbdense.backends.cpu import backend", ["from nbdense.backends alone BROKEN"]),
        (
            "network/network.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nbdense.network.builder",
            ["No circles", "nbdense.network"],
        ),
    ],
)
def test_a_forbidden_import_is_refused(module, line, words, site, tmp_path):
    shutil.copytree(site / "nbdense", tmp_path / "nbdense")
    path = tmp_path / "nbdense" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    status, said = contracts(tmp_path)
    assert status == 1
    assert all(word in said for word in words), said


def mypy(*arguments: object, cwd: Path, **environment: str) -> str:
    cache = ROOT / ".mypy_cache"
    done = subprocess.run(
        [str(part) for part in (sys.executable, "-m", "mypy", "--cache-dir", cache, *arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def test_types(site):
    """Mypy on the installed wheel: an editable install is an import hook, which mypy cannot follow."""
    said = mypy("--config-file", ROOT / "pyproject.toml", "-p", "nbdense", cwd=site)
    assert said.startswith("Success"), said


def test_types_reach_the_user(site, tmp_path):
    """py.typed works: a user's own mypy finds his mistake."""
    (tmp_path / "user.py").write_text(
        "import nbdense\nnumber: int = nbdense.__version__\nnbdense.no_such_name\n", encoding="utf-8"
    )
    said = mypy("--config-file=", "user.py", cwd=tmp_path, PYTHONPATH=str(site))
    assert 'expression has type "str", variable has type "int"' in said, said
    # A module-level __getattr__ that mypy sees would make every name right, and Any.
    assert '"no_such_name"' in said, said
