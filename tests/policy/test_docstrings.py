"""Docstrings are a contract: they name the parameters that there are, and their examples run (STYLE.md, rule 10)."""

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator

import pytest

import nbdense
from tests.support.source_tree import library_modules

PUBLIC_MODULES = [name for name in library_modules() if not any(part.startswith("_") for part in name.split(".")[1:])]
_UNDERLINE = re.compile(r"-{3,}\s*$")
_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, ?\*{0,2}\w+)*)\s*(?::.*)?$")


def documented_parameters(docstring: str) -> list[str] | None:
    """Names in the NumPy-style Parameters sections, in order; None where there is no such section."""
    lines = inspect.cleandoc(docstring).splitlines()
    names: list[str] | None = None
    inside = False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if _UNDERLINE.match(following):
            inside = line.strip() in {"Parameters", "Other Parameters"}
            if inside:
                names = names or []
        elif inside and line and not line[0].isspace() and not _UNDERLINE.match(line):
            entry = _ENTRY.match(line)
            assert entry and names is not None, f"not a parameter entry: {line!r}"
            names += [name.strip().lstrip("*") for name in entry["names"].split(",")]
    return names


def signature_parameters(thing: Callable) -> list[str]:
    # numba's dispatchers carry the Python function that they compile
    try:
        names = inspect.signature(getattr(thing, "py_func", thing)).parameters
    except ValueError:  # an exception class without an __init__ of its own
        return []
    return [name for name in names if name not in {"self", "cls"}]


def complaint(thing: Callable, docstring: str | None, *, section_needed: bool = False) -> str | None:
    if not docstring:
        return "has no docstring"
    documented, actual = documented_parameters(docstring), signature_parameters(thing)
    if documented is None:
        return "has no Parameters section" if section_needed and actual else None
    return None if documented == actual else f"documents {documented}, takes {actual}"


def public_things(module: object) -> Iterator[tuple[str, Callable]]:
    """Public functions, classes and methods that a module defines itself."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing):
            yield name, thing
            for attribute, value in vars(thing).items():
                member = getattr(value, "__func__", value)  # class and static methods
                if not attribute.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{attribute}", member
        elif inspect.isfunction(thing) or inspect.isfunction(getattr(thing, "py_func", None)):
            yield name, thing


def resolve(module: object, dotted: str) -> object:
    thing = module
    for part in dotted.split("."):
        thing = getattr(thing, part)
    return thing


def test_checker_can_fail():
    def scale(x, *, factor=1.0, **options):
        """Scale.

        Parameters
        ----------
        x, factor : float
            Multiplied
        **options
            Passed on.

        Returns
        -------
        float
        """

    assert complaint(scale, scale.__doc__) is None
    assert "takes" in complaint(scale, scale.__doc__.replace("x, factor", "x, scale"))
    assert "takes" in complaint(scale, scale.__doc__.replace("x, factor", "x"))
    assert complaint(scale, "Scale.") is None
    assert "no Parameters" in complaint(scale, "Scale.", section_needed=True)
    assert "no docstring" in complaint(scale, None)


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_parameter_names_match_signatures(module_name):
    module = importlib.import_module(module_name)
    public_names = set(nbdense.__all__)
    complaints = []
    for name, thing in public_things(module):
        # A method that is overridden to meet its parent's contract has its parent's docstring.
        docstring = inspect.getdoc(resolve(module, name))
        if docstring is None and module_name.startswith("nbdense.engine."):
            continue  # no user calls the engine: its names and design note may do
        said = complaint(thing, docstring, section_needed=name in public_names)
        if said:
            complaints.append(f"{module_name}.{name} {said}")
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_examples_run(module_name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


def test_public_names_are_there():
    assert nbdense.__all__
    for name in nbdense.__all__:
        assert getattr(nbdense, name) is not None
    assert set(nbdense.__all__) <= set(dir(nbdense))
