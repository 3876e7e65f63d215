"""Bytes and instructions of C on each processor, for `estimate`: `python -m benchmarks.edge.measure` writes them.

Bytes of code are those of each C function in an object file of -Os, as far as many networks' objects tell them apart:
least squares over all. Instructions are fitted to runs in the emulator, of what each layer repeats.
"""

from __future__ import annotations

import pprint
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.edge.emulator import Machine, link, sizes
from nbdense.export import to_object
from nbdense.export.c.api import texts_of
from nbdense.export.c.costs.costs import work_of
from nbdense.export.c.program import program_of
from nbdense.export.c.targets import TARGETS
from tests.support.drawn_networks import draw_network
from tests.support.edge_networks import chain, integers_for, tables, thinned

ROOT = Path(__file__).parents[2]
COMPILED = [name for name, target in TARGETS.items() if target.flags]
EMULATED = [name for name in COMPILED if name not in ("cortex-m33", "wasm32")]


def networks() -> Iterable[Any]:
    """Yield networks that have every function, in many combinations."""
    for rounding in ("onnx", "tflite"):
        for dtype in ("int8", "uint8"):
            for seed, widths in enumerate([[64, 32, 8], [33, 17, 5, 3], [20, 64, 64, 2], [16, 8, 8, 8, 8, 8]]):
                yield chain(widths, seed, dtype, rounding)
                yield chain(widths, seed, dtype, rounding, activation="tanh" if seed == 9 else "relu", softmax=True)
            yield chain([32, 16, 8], 1, dtype, rounding, bits=4)
            yield chain([30, 15, 9], 1, dtype, rounding, bits=4, softmax=True)
            yield chain([32, 16, 8], 1, dtype, rounding, granularity="per_tensor")
            yield chain([32, 16, 7], 1, dtype, rounding, activation="relu6")
            for seed, activation in enumerate(("tanh", "silu", "gelu")):
                yield tables(seed, dtype, rounding, activation)
            for seed, width in enumerate((1, 4)):
                yield thinned(chain([64, 40, 24, 8], seed, dtype, rounding), 0.9, width)
                yield thinned(chain([100, 31, 17], seed, dtype, rounding, activation="relu6"), 0.85, width)
    yield from map(draw_network, range(8))


def code(target: str, folder: Path, made: list[Any]) -> dict[str, float]:
    """Return bytes of each feature."""
    rows, sums = [], []
    for network in made:
        texts = texts_of(network, "net", "net.h", target=target)
        path = folder / ("net.wasm" if target == "wasm32" else "net.o")
        to_object(network, path, target, verify=False)
        constants = sum(cost.flash for cost in texts.costs)
        total = path.stat().st_size if target == "wasm32" else sum(sizes(path)[:2])
        rows.append(texts.features)
        sums.append(total - constants)
    return fitted(target, rows, sums)


def instructions(target: str, folder: Path, made: list[Any]) -> dict[str, float]:
    """Return instructions of each thing that layers repeat."""
    rows, sums = [], []
    for network in made:
        texts = texts_of(network, "net", "net.h", target=target)
        (folder / "net.c").write_text(texts.source, encoding="ascii")
        (folder / "net.h").write_text(texts.header, encoding="ascii")
        program = link(folder / "net.c", "net_predict", target, folder / "program", ("-Os",))
        q, _ = integers_for(network, 1)
        run = Machine(program, target).call(q[0], network.n_out, np.int8, counted=True)
        rows.append(work_of(program_of(network), TARGETS[target]))
        sums.append(run.instructions)
    return fitted(target, rows, sums, relative=True)


def fitted(target: str, rows: list[dict[str, int]], sums: list[float], relative: bool = False) -> dict[str, float]:
    """Return the numbers, none below 0, that explain the sums best."""
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0) for name in names] for row in rows], float)
    wanted = np.array(sums, float)
    weights = 1 / wanted if relative else np.ones(len(wanted))
    found, _ = nnls(matrix * weights[:, None], wanted * weights)
    errors = (matrix @ found - wanted) / wanted
    print(target, f"errors: {np.abs(errors).mean():.1%}, at most {np.abs(errors).max():.1%}", flush=True)
    return {name: round(float(number), 2) for name, number in zip(names, found, strict=True) if number}


def main() -> None:
    """Measure all, and write the module."""
    made = list(networks())
    with tempfile.TemporaryDirectory() as folder:
        codes = {target: code(target, Path(folder), made) for target in COMPILED}
        counts = {target: instructions(target, Path(folder), made) for target in EMULATED}
    text = '"""Bytes of code and instructions on each processor: written by `python -m benchmarks.edge.measure`."""\n\n'
    for name, table in (("CODE", codes), ("INSTRUCTIONS", counts)):
        text += f"{name}: dict[str, dict[str, float]] = {pprint.pformat(table, width=100)}\n"
    (ROOT / "export" / "c" / "costs" / "measured.py").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
