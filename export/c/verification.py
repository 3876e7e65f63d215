"""`verify_c`: the C compiled and run on this machine, against nbdense."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.export.c.compiling import compile_c, compiler_at_hand
from nbdense.export.c.names import source_path
from nbdense.export.c.program import Program, float_program_of, network_in_c, program_of
from nbdense.export.networks import is_quantized, network_of, shapes_of, with_predict
from nbdense.export.verify.tolerance import TOLERANCE, cost_of_float32, largest_differences
from nbdense.quant.model.network import LIMITS

RANDOM_ROWS = 256  # where no data is given

_HARNESS = """\
#include <stdio.h>
#include "@HEADER"

/* Predicts each row of one file into another: integers, or with a third argument real numbers. */
int main(int count, char **names)
{
    static @VALUE integers_in[@INPUTS], integers_out[@OUTPUTS];
    static float reals_in[@INPUTS], reals_out[@OUTPUTS];
    FILE *const in = fopen(names[1], "rb"), *const out = fopen(names[2], "wb");
@MEMORY
    if (in == NULL || out == NULL) {
        return 3;
    }
    if (count > 3) {
        while (fread(reals_in, sizeof reals_in, 1, in) == 1) {
            if (@VALUES(reals_in, reals_out@WITH) != 0 || fwrite(reals_out, sizeof reals_out, 1, out) != 1) {
                return 2;
            }
        }
    } else {
        while (fread(integers_in, sizeof integers_in, 1, in) == 1) {
            if (@PREDICT(integers_in, integers_out@WITH) != 0
                || fwrite(integers_out, sizeof integers_out, 1, out) != 1) {
                return 2;
            }
        }
    }
    return fclose(out) == 0 ? 0 : 3;
}
"""


@dataclass(frozen=True)
class CVerification:
    """The result of comparing C with a model.

    Attributes
    ----------
    agrees : bool
        Whether every integer is equal, and every real number within what float32 costs.
    rows : int
        Rows of data.
    integers : int or None
        Output integers compared; None for a float model.
    differing_integers : int or None
        How many of them differ.
    max_absolute : float
        Largest difference of a real output.
    compiler : str
        The compiler.
    """

    agrees: bool
    rows: int
    integers: int | None
    differing_integers: int | None
    max_absolute: float
    compiler: str

    def __str__(self) -> str:
        count = "" if self.integers is None else f"; {self.differing_integers} of {self.integers} integers differ"
        verdict = "agrees" if self.agrees else "differs"
        return f"{verdict}; {self.rows} rows by {self.compiler}{count}; largest difference {self.max_absolute:.3g}"


def verify_c(
    path: str | os.PathLike[str],
    model: Any,
    x: Any = None,
    *,
    compiler: str | None = None,
    options: Sequence[str] = (),
) -> CVerification:
    """Compile a C source on this machine, run it, and compare every output with the model that it was made from.

    Parameters
    ----------
    path : path
        The source, with its header beside it.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    x : array-like, (rows, ..., n_in), optional
        Data to compare on; by default seeded random rows, of integers over their whole range.
    compiler : str, optional
        The compiler: a program, or "ziglang" for the wheel. By default the environment's CC, then cc, gcc or clang,
        then ziglang.
    options : sequence of str
        More of its arguments. A source of target "cmsis-nn" needs "-I", the folders of CMSIS-NN's headers, and its
        sources.

    Returns
    -------
    CVerification
        Its ``agrees`` says whether they do.

    Raises
    ------
    OSError
        If the files cannot be read.
    RuntimeError
        If there is no compiler, it refuses the source, or the program fails.
    TypeError, ValueError
        If the source is not the model's, or ``x`` does not fit.
    """
    source = source_path(path)
    header = source.with_suffix(".h").read_text(encoding="ascii")
    found = re.search(
        r"^int (\w+)_predict\(const (\w+) \*input, (\w+) \*output(, \w+ \*memory)?\);", header, re.MULTILINE
    )
    if found is None:
        raise ValueError(f"{source.with_suffix('.h')} is no header that to_c wrote")
    command = compiler_at_hand(compiler)
    if command is None:
        raise RuntimeError("there is no C compiler on this machine: install one, or `pip install ziglang`")
    name, value, memory = found[1], found[2], found[4] is not None
    network = network_of(model)
    shape = shapes_of(network)
    for what, size in (("INPUTS", shape[0]), ("OUTPUTS", shape[1])):
        wanted = int(np.prod(size))
        if f"#define {name.upper()}_{what} {wanted}\n" not in header:
            raise ValueError(f"{source} is not of this model, which has {wanted} {what.lower()}")
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        run = _Runner(Path(folder), command, source, (name, value, memory), (shape[0], shape[1]), options)
        title = Path(command[0]).name if command[1:2] != ("-m",) else "ziglang"
        if value == "float":
            return _compare_floats(run, model, x, title)
        return _compare_integers(run, model, x, title)


class _Runner:
    """The source, compiled with a program around it that reads rows and writes rows."""

    def __init__(
        self,
        folder: Path,
        command: Any,
        source: Path,
        form: tuple[str, str, bool],
        shapes: tuple[Any, Any],
        options: Sequence[str],
    ) -> None:
        name, value, memory = form
        upper = name.upper()
        self._folder, self._program = folder, folder / ("harness.exe" if os.name == "nt" else "harness")
        self.dtype = np.dtype(value.removesuffix("_t") if value != "float" else np.float32)
        self.shapes = shapes
        parts = {
            "@HEADER": source.with_suffix(".h").resolve().as_posix(),
            "@VALUES": f"{name}_predict" if value == "float" else f"{name}_predict_values",
            "@VALUE": value,
            "@INPUTS": f"{upper}_INPUTS",
            "@OUTPUTS": f"{upper}_OUTPUTS",
            "@MEMORY": f"    static {value} memory[{upper}_MEMORY];\n" if memory else "",
            "@WITH": ", memory" if memory else "",
            "@PREDICT": f"{name}_predict",
        }
        text = _HARNESS
        for place, part in parts.items():
            text = text.replace(place, part)
        harness = folder / "harness.c"
        harness.write_text(text, encoding="utf-8")
        ends = (*options, "-lm") if os.name != "nt" else options
        compile_c(command, [harness, source.resolve()], self._program, ends)

    def __call__(self, rows: npt.NDArray[Any], *, real: bool) -> npt.NDArray[Any]:
        given, made = self._folder / "in", self._folder / "out"
        given.write_bytes(np.ascontiguousarray(rows).tobytes())
        done = subprocess.run(
            [self._program, given, made, *(["values"] if real else [])], capture_output=True, check=False, timeout=600
        )
        if done.returncode != 0:
            raise RuntimeError(f"the compiled C ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        out = np.frombuffer(made.read_bytes(), np.float32 if real else self.dtype)
        return out.reshape(len(rows), -1)


def _compare_floats(run: _Runner, model: Any, x: Any, title: str) -> CVerification:
    network: Any = network_in_c(model)
    rows = _rows(x, run.shapes[0]) if x is not None else random_rows(float_program_of(network), run.shapes[0])
    expected = with_predict(model).predict(rows).reshape(len(rows), -1)
    absolute, relative = largest_differences([(expected, run(rows, real=True))])
    allowed = TOLERANCE
    if min(absolute, relative) > allowed:
        cost = cost_of_float32(network, rows)
        allowed = max(allowed, cost) if np.isfinite(cost) else allowed
    return CVerification(min(absolute, relative) <= allowed, len(rows), None, None, absolute, title)


def _compare_integers(run: _Runner, model: Any, x: Any, title: str) -> CVerification:
    network: Any = network_in_c(model)
    if not is_quantized(network):
        raise ValueError("the source is of a quantized model, and this is a float one")
    program = program_of(network)
    rows = _rows(x, run.shapes[0]) if x is not None else random_rows(program, run.shapes[0])
    reference = with_predict(model)
    wanted = reference.predict_integers(rows).reshape(len(rows), -1)
    made = run(quantized(program, rows), real=False)
    values, expected = run(rows, real=True), reference.predict(rows).reshape(len(rows), -1)
    differing = int((made != wanted).sum())
    absolute = float(np.abs(values - expected).max())
    allowed = TOLERANCE if program.softmax else 0.0
    return CVerification(differing == 0 and absolute <= allowed, len(rows), made.size, differing, absolute, title)


def _rows(x: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    rows = np.ascontiguousarray(_checks.rows("x", x, shape, "the model"), np.float32)
    if len(rows) == 0 or not np.isfinite(rows).all():
        raise ValueError("x: there must be rows to compare on, of finite numbers")
    return rows.reshape(len(rows), *shape)


def quantized(program: Program, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Quantize rows as a program's input has them: ONNX's QuantizeLinear.

    Parameters
    ----------
    program : Program
        A program of integers.
    rows : ndarray of float32
        Finite numbers.
    """
    scale, zero_point = program.input_format
    dtype = program.value.removesuffix("_t")
    with np.errstate(over="ignore"):
        steps = np.rint(rows / np.float32(scale)).astype(np.float64) + zero_point
    return np.clip(steps, *LIMITS[dtype]).astype(dtype)


def random_rows(program: Program, shape: tuple[int, ...], count: int = RANDOM_ROWS) -> npt.NDArray[np.float32]:
    """Draw rows: of a program of integers, numbers that stand for each of them; else standard normal ones.

    Parameters
    ----------
    program : Program
        The program.
    shape : tuple of int
        Shape of one row.
    count : int
        How many.
    """
    rng = np.random.default_rng(0)
    if program.value == "float":
        return rng.standard_normal((count, *shape), np.float32)
    scale, zero_point = program.input_format
    least, most = LIMITS[program.value.removesuffix("_t")]
    # Every other row is of smaller numbers, whose sums are less likely to saturate.
    steps = rng.integers(least, most + 1, (count, *shape)) - zero_point
    steps[::2] = steps[::2] * rng.uniform(0, 1, (len(steps[::2]), *[1] * len(shape)))
    return steps.astype(np.float32) * np.float32(scale)
