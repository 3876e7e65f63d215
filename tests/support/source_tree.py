"""The source tree as the policy tests see it: which file is which module, according to pyproject.toml."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# {"nbdense": ROOT / "nbdense", "nbdense.quant": ROOT / "quant", ...}
PACKAGE_FOLDERS = {package: ROOT / folder for package, folder in PYPROJECT["tool"]["setuptools"]["package-dir"].items()}

_NOT_OURS = {"__pycache__", "build", "dist", "htmlcov", "nbdense-demo"}


def repository_files() -> Iterator[Path]:
    """Every file of the repository, short of environments, caches and build outputs (git need not be there)."""
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name == ".ci" or not (name.startswith(".") or name.endswith(".egg-info") or name in _NOT_OURS)
        )
        yield from (Path(folder, name) for name in sorted(names))


def library_modules() -> dict[str, Path]:
    """Every module of the library, by the name under which it is imported."""
    modules = {}
    for package, folder in PACKAGE_FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules
