"""The rows of float networks as steps of a C program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbdense.engine.rows import ACTIVATION, ADD, DENSE
from nbdense.export.c.kernels.floats import EXPRESSIONS, ROW_FUNCTIONS
from nbdense.export.c.source import POINTER, Source, real
from nbdense.export.c.steps.sparse import SparseKernel, sparse_kernel
from nbdense.export.c.steps.step import Step
from nbdense.export.c.targets import by_fours
from nbdense.layers import form_of
from nbdense.network import Row

_MOST = float(np.finfo(np.float32).max)  # what stands for an infinite bound


@dataclass(frozen=True, eq=False)
class RowStep(Step):
    """A row of a float network, and its activation.

    Attributes
    ----------
    row : Row
        The row.
    sparse : SparseKernel or None
        Its kernel without the zeros, where it takes less so.
    """

    row: Row
    sparse: SparseKernel | None = None

    def write(self, source: Source, label: str, inputs: Sequence[str], output: str) -> None:
        row = self.row
        if row.kind is DENSE:
            _write_dense(source, row, self.sparse, label, inputs[0], output)
        elif row.kind is ADD:
            count = row.positions * row.n_out
            source.call(("float_add",), f"float_add({inputs[0]}, {inputs[1]}, {output}, {count});")
        elif row.kind is not ACTIVATION:
            _write_by_form(source, row, label, inputs[0], output)
        if row.activation.name != "linear" or row.kind is ACTIVATION:
            _write_activation(source, row, inputs[0] if row.kind is ACTIVATION else output, output)


def row_step(row: Row) -> RowStep:
    """Return the step of a row.

    Parameters
    ----------
    row : Row
        The row.
    """
    if row.kind is not DENSE:
        return RowStep(row)
    kernel = np.asarray(row.kernel, np.float32)
    return RowStep(row, sparse_kernel(kernel, kernel.nbytes))


def refusal(row: Row) -> str | None:
    """Return why a row has no form in C, and what to do; None where it has one.

    Parameters
    ----------
    row : Row
        The row.
    """
    form = form_of(row.kind)
    if row.kind not in (ACTIVATION, ADD, DENSE) and (form is None or form.write_c is None):
        return f"{row.label} has no form in C: write what nbdense.quantize makes of the model"
    name = row.activation.name
    if row.activation.own or (name not in EXPRESSIONS and name not in ROW_FUNCTIONS):
        return (
            f"{row.label}: its activation {name!r} has no form in C among floats: quantize the model, which makes a "
            "table of it"
        )
    if not all(np.isfinite(np.asarray(tensor, np.float32)).all() for tensor in row.tensors.values()):
        return f"{row.label}: a weight is not finite in float32"
    return None


def _write_dense(source: Source, row: Row, sparse: SparseKernel | None, label: str, given: str, output: str) -> None:
    kernel = np.asarray(row.kernel, np.float32)
    bias = np.zeros(row.n_out, np.float32) if row.bias is None else np.asarray(row.bias, np.float32)
    if sparse is not None:
        _write_sparse(source, row, sparse, bias, label, (given, output))
        return
    fields = {
        "weights": source.array("float", f"weights_{label}", by_fours(kernel)),
        "bias": source.array("float", f"bias_{label}", bias),
        "n_in": str(row.n_in),
        "n_out": str(row.n_out),
    }
    address = source.layer("float_dense_layer", fields, 2 * POINTER + 8)
    call = f"float_dense({address}, {{}}, {{}})"
    source.repeated(("float_dense",), row.positions, call, {given: row.n_in, output: row.n_out})


def _write_sparse(
    source: Source, row: Row, sparse: SparseKernel, bias: Any, label: str, operands: tuple[str, str]
) -> None:
    padded = np.zeros(len(sparse.counts) * sparse.width, np.float32)  # as wide as the last block
    padded[: len(bias)] = bias
    fields = {
        "weights": source.array("float", f"weights_{label}", sparse.weights),
        "bias": source.array("float", f"bias_{label}", padded),
        **sparse.write(source, label),
        "n_out": str(row.n_out),
    }
    address, kernel = source.layer("float_sparse_layer", fields, 4 * POINTER + 4), f"float_sparse_of_{sparse.width}"
    steps = dict(zip(operands, (row.n_in, row.n_out), strict=True))
    source.repeated((kernel,), row.positions, f"{kernel}({address}, {{}}, {{}})", steps)


def _write_by_form(source: Source, row: Row, label: str, given: str, output: str) -> None:
    form = form_of(row.kind)
    assert form is not None and form.write_c is not None
    kernel, constants = form.write_c(source, row, label)
    call = f"{kernel}({', '.join(constants)}, {{}}, {{}}, {row.n_out})"
    source.repeated((kernel,), row.positions, call, {given: row.n_in, output: row.n_out})


def _write_activation(source: Source, row: Row, given: str, output: str) -> None:
    name = row.activation.name
    if name in ROW_FUNCTIONS:
        call = f"float_{name}({{}}, {{}}, {row.n_out})"
        # One operand where both are the same: a call in place.
        operands: dict[str, Any] = {given: row.n_out, output: row.n_out}
        if given == output:
            call = f"float_{name}({{0}}, {{0}}, {row.n_out})"
        source.repeated((f"float_{name}",), row.positions, call, operands)
        return
    alpha = row.activation.alpha
    numbers = alpha if isinstance(alpha, tuple) else (alpha,)
    wanted = [i for i in range(3) if f"p{i}" in EXPRESSIONS[name]]
    parameters = "".join(f", {real(np.clip(numbers[i], -_MOST, _MOST))}" for i in wanted)
    count = row.positions * row.n_out
    source.call((f"float_{name}",), f"float_{name}({given}, {output}, {count}{parameters});")
