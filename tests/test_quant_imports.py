"""nbdense.quant's rooms from the top down: imports lead from one to a lower one, and never in a circle."""

import ast
import graphlib
import itertools

from source_tree import library_modules

ROOMS = [
    ("quantization", "pruning"),
    ("training", "reporting"),
    ("conversion",),
    ("weights",),
    ("model", "calibration"),
    ("schemes",),
    ("layers",),
    ("kernels",),
]
LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
MODULES = {
    name.removeprefix("nbdense.quant."): path
    for name, path in library_modules().items()
    if name.startswith("nbdense.quant.")
}


def imported(name):
    """Modules of nbdense.quant that one imports: at its top, in functions, and for types."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from {part.removeprefix("nbdense.quant.") for part in names} & set(MODULES)


def test_imports_run_downwards():
    rooms = {name: name.split(".")[0] for name in MODULES}
    assert set(rooms.values()) == set(LEVELS)
    upwards = [
        (name, other)
        for name in MODULES
        for other in imported(name)
        if rooms[name] != rooms[other] and LEVELS[rooms[name]] >= LEVELS[rooms[other]]
    ]
    assert upwards == []


def test_no_imports_in_circles():
    imports = {name: set(imported(name)) for name in MODULES}
    assert sum(map(len, imports.values())) > 50
    list(graphlib.TopologicalSorter(imports).static_order())  # CycleError names the circle


def test_a_report_is_rendered_without_a_model():
    lower = set(itertools.chain(*(imported(name) for name in ("model.rendering", "model.timing"))))
    assert lower == set()
