"""The tables of an integer program in the making: what the layers of a network write their rows into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation
from nbdense.engine import tables as engine
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import DENSE, RowKind
from nbdense.engine.tables import leading_dimension
from nbdense.quant.kernels import rounding, tables
from nbdense.quant.kernels.microkernel import GROUP, pack
from nbdense.quant.kernels.sparse_formats import NO_SPARSE_KERNELS, SparseKernels
from nbdense.quant.layers.base import Format
from nbdense.quant.layers.checks import LIMITS

_VECTORS = {**tables.VECTORS, **tables.SPARSE}
WHOLE = 16  # rows, a whole number of vectors of every CPU: how many more a workspace has that lies feature by feature


class Layout:
    """Rows, packed weights and columns of a program; layers write themselves into it, in the order in which they run.

    A tensor may have a buffer of bytes, one of floats, or both: what reads it in the other form than it was written
    in gets a row in front that converts it, once.

    Parameters
    ----------
    tensors : list of (int, int)
        Positions and columns of each tensor: of the input, then of each layer's output.
    formats : list of (float, int) or None
        Scale and zero point of each; None: it is float.
    inputs : list of tuples of int
        The tensors that each layer reads,
    input_formats : list of tuples of (float, int) or None
        and as what.
    dtype : str
        The activation dtype.
    rounding : str
        How accumulators are requantised.
    sparse : SparseKernels
        Kernels that are held without their zeros.
    """

    def __init__(
        self,
        tensors: Sequence[tuple[int, int]],
        formats: Sequence[Format],
        inputs: Sequence[tuple[int, ...]],
        input_formats: Sequence[tuple[Format, ...]],
        dtype: str,
        rounding: str,
        sparse: SparseKernels = NO_SPARSE_KERNELS,
    ) -> None:
        self.tensors, self.formats = tensors, formats
        self.inputs, self.input_formats = inputs, input_formats
        self.dtype, self.rounding, self.sparse = dtype, rounding, sparse
        self.minimum = LIMITS[dtype][0]
        self._rows: list[dict[str, Any]] = []
        self._engine_rows: list[dict[str, Any]] = []
        # What the vectors hold, and where; and how long they are.
        self._parts: dict[str, list[tuple[int, npt.NDArray[Any]]]] = {name: [] for name in _VECTORS}
        self._sizes = dict.fromkeys(_VECTORS, 0)
        self._channels = 0  # columns so far
        self._params: list[tuple[int, npt.NDArray[Any], int]] = []
        self._params_size = 0
        positions, n = tensors[0]
        self._copies_input = False
        self._byte_width, self._float_width = 0, positions * leading_dimension(n)
        self._floats_of: dict[int, int] = {0: 0}  # buffers by tensor; where their rows lie,
        self._columns_of: dict[int, int] = {}  # and where all lie feature by feature
        self._bytes_of: dict[tuple[int, float, int], int] = {}  # by tensor and format

    # -- buffers --

    def _byte_buffer(self, tensor: int) -> int:
        positions, n = self.tensors[tensor]
        at = self._byte_width
        self._byte_width += positions * leading_dimension(n)
        return at

    def room_of(self, tensor: int) -> int:
        """Make a buffer of floats as large as a tensor.

        Parameters
        ----------
        tensor : int
            Number of the tensor.
        """
        positions, n = self.tensors[tensor]
        return self.room(positions * leading_dimension(n))

    def room(self, columns: int) -> int:
        """Make a buffer of floats of so many columns.

        Parameters
        ----------
        columns : int
            Elements for each row of data.
        """
        at = self._float_width
        self._float_width += columns
        return at

    def bytes_of_input(self, index: int, which: int = 0) -> int:
        """Return the buffer of bytes that a layer's input is in, behind a row that quantizes it where it is float.

        Parameters
        ----------
        index : int
            The layer's place in the network.
        which : int
            Number of the input among its inputs.
        """
        tensor = self.inputs[index][which]
        wanted = self.input_formats[index][which]
        assert wanted is not None
        key = (tensor, *wanted)
        if key not in self._bytes_of:
            self._bytes_of[key] = output = self._byte_buffer(tensor)
            self.row(
                tables.QUANTIZE,
                tensor,
                tensor,
                input=self._floats(tensor),
                output=output,
                zero_point=wanted[1] - self.minimum,
                scale=wanted[0],
            )
        return self._bytes_of[key]

    def floats_of_input(self, index: int, which: int = 0) -> int:
        """Return the buffer of floats that a layer's input is in, behind a row that dequantizes it where it is bytes.

        Parameters
        ----------
        index : int
            The layer's place in the network.
        which : int
            Number of the input among its inputs.
        """
        return self._floats(self.inputs[index][which])

    def _floats(self, tensor: int) -> int:
        if tensor not in self._floats_of:
            form = self.formats[tensor]
            self._floats_of[tensor] = output = self.room_of(tensor)
            if form is None:
                self.row(tables.TO_ROWS, tensor, tensor, input=self._columns_of[tensor], output=output)
                return output
            self.row(
                tables.DEQUANTIZE,
                tensor,
                tensor,
                input=self._bytes_of[(tensor, *form)],
                output=output,
                zero_point=form[1] - self.minimum,
                scale=form[0],
            )
        return self._floats_of[tensor]

    def columns_of_input(self, index: int) -> int:
        """Return the buffer in which a layer's input lies feature by feature, behind a row that transposes it.

        Parameters
        ----------
        index : int
            The layer's place in the network.
        """
        tensor = self.inputs[index][0]
        if tensor not in self._columns_of:
            source = self._floats(tensor)
            self._columns_of[tensor] = output = self.room_of(tensor)
            self.row(tables.TO_COLUMNS, tensor, tensor, input=source, output=output)
        return self._columns_of[tensor]

    def columns_of_output(self, index: int) -> int:
        """Make the buffer in which a layer's output lies feature by feature.

        Parameters
        ----------
        index : int
            The layer's place in the network.
        """
        self._columns_of[index + 1] = output = self.room_of(index + 1)
        return output

    def row(self, kind: int, source: int, target: int, **fields: Any) -> None:
        """Write a row from one tensor to another.

        Parameters
        ----------
        kind : int
            Kind of row, as in `nbdense.quant.kernels.tables`.
        source, target : int
            The tensors.
        **fields
            Of the row.
        """
        positions, n_in = self.tensors[source]
        n_out = self.tensors[target][1]
        row = {
            "kind": kind,
            "positions": positions,
            "n_in": n_in,
            "n_out": n_out,
            "ld_in": leading_dimension(n_in),
            "ld_out": leading_dimension(n_out),
            "zero_points": -1,
            "table": -1,
            "exponentials": -1,
            "engine_row": -1,
            "bases": -1,
            "high": 255,
            **fields,
        }
        self._rows.append(row)

    def integer_row(self, kind: int, index: int, **fields: Any) -> None:
        """Write a row that reads a layer's input and gives its output, both as bytes.

        Parameters
        ----------
        kind : int
            Kind of row, as in `nbdense.quant.kernels.tables`.
        index : int
            The layer's place in the network.
        **fields
            Of the row.
        """
        target = index + 1
        form = self.formats[target]
        assert form is not None
        source = self.bytes_of_input(index)
        self._bytes_of[(target, *form)] = output = self._byte_buffer(target)
        self.row(kind, self.inputs[index][0], target, input=source, output=output, **fields)

    # -- vectors --

    def columns(self, count: int = 0, **values: npt.NDArray[Any]) -> int:
        """Lay out columns of one or several kinds beside each other; returns where they begin.

        Parameters
        ----------
        count : int
            How many there are at least.
        **values
            Of each kind, by its name in `nbdense.quant.kernels.tables.COLUMNS`.
        """
        at = self._channels
        for name, column in values.items():
            self._parts[name].append((at, column))
            count = max(count, len(column))
        self._channels += engine.padded(count)
        for name in values:
            self._sizes[name] = self._channels
        return at

    def kernel(self, kernel: npt.NDArray[np.int8]) -> int:
        """Lay out weights, packed; returns where they begin.

        Parameters
        ----------
        kernel : ndarray of int8, (n_in, n_out)
            The weights.
        """
        n_in, n_out = kernel.shape
        packed = np.zeros((-(-n_in // GROUP), leading_dimension(n_out), GROUP), np.int8)
        pack(kernel, packed)
        return self.put("weights", packed.reshape(-1))

    def zero_points(self, zero_points: npt.NDArray[Any] | None) -> int:
        """Lay out zero points; returns where they begin, -1 without any.

        Parameters
        ----------
        zero_points : ndarray of integers, or None
            Zero points of a kernel's columns, or of the terms of a sum.
        """
        return -1 if zero_points is None else self.put("zero_points", zero_points)

    def table(self, table: npt.NDArray[Any]) -> int:
        """Lay out the table of an activation; returns where it begins.

        Parameters
        ----------
        table : ndarray of the activation dtype, (256,)
            The layer's.
        """
        return self.put("tables", table.astype(np.int16) - self.minimum)

    def exponentials(self, exponentials: npt.NDArray[np.int32]) -> int:
        """Lay out the exponentials of a softmax; returns where they begin.

        Parameters
        ----------
        exponentials : ndarray of int32, (256,)
            The layer's.
        """
        return self.put("exponentials", exponentials)

    def put(self, name: str, values: npt.NDArray[Any]) -> int:
        """Lay out an array; returns where it begins.

        Parameters
        ----------
        name : str
            The vector, of `nbdense.quant.kernels.tables.VECTORS` or ``SPARSE``.
        values : ndarray, one-dimensional
            Numbers of its type.
        """
        at = self._sizes[name]
        self._parts[name].append((at, values))
        self._sizes[name] = at + engine.padded(len(values))
        return at

    def _vector(self, name: str) -> npt.NDArray[Any]:
        types = {values.dtype for _, values in self._parts[name]} if name == "indices" else set()
        vector = aligned_zeros(self._sizes[name], np.result_type(_VECTORS[name], *types))
        for at, values in self._parts[name]:
            vector[at : at + len(values)] = values
        return vector

    def _parameter(self, value: npt.NDArray[Any]) -> int:
        """Lay out a tensor of the engine's, its rows padded; returns where it will lie."""
        matrix = value.reshape(-1, value.shape[-1])
        ld = leading_dimension(matrix.shape[1])
        at = self._params_size
        self._params.append((at, matrix, ld))
        self._params_size += matrix.shape[0] * ld
        return at

    # -- rows --

    def float_row(
        self,
        kind: RowKind,
        index: int,
        function: Activation,
        tensors: Mapping[str, npt.NDArray[Any] | None],
        **values: Any,
    ) -> None:
        """Write a row of the engine's that reads and gives floats.

        Parameters
        ----------
        kind : RowKind
            Kind of row, as in `nbdense.engine.rows`.
        index : int
            The layer's place in the network.
        function : Activation
            The row's.
        tensors : mapping of str to ndarray or None
            Its parameters, by the names that the kind has for them.
        **values
            Its numbers, likewise.
        """
        sources = [self.floats_of_input(index, which) for which in range(len(self.inputs[index]))]
        self._copies_input |= kind is not DENSE and 0 in sources
        output = self.float_output(index)
        values |= {name: self._parameter(value) for name, value in tensors.items() if value is not None}
        values["start"] = values.get("bias", -1)
        if len(sources) > 1:
            values["second"] = sources[1]
        number = self.engine_row(kind, index, sources[0], output, function, **values)
        self.row(tables.FLOAT, self.inputs[index][0], index + 1, input=sources[0], output=output, engine_row=number)

    def float_output(self, index: int) -> int:
        """Make the buffer of floats that a layer's output goes to.

        Parameters
        ----------
        index : int
            The layer's place in the network.
        """
        self._floats_of[index + 1] = output = self.room_of(index + 1)
        return output

    def engine_row(
        self, kind: RowKind, index: int, source: int, output: int, function: Activation, **values: Any
    ) -> int:
        """Write a row for the engine's table; returns its number.

        Parameters
        ----------
        kind : RowKind
            Kind of row, as in `nbdense.engine.rows`.
        index : int
            The layer's place in the network.
        source, output : int
            Buffers of floats.
        function : Activation
            The row's.
        **values
            Its parameters' places and its numbers, by the names that the kind has for them.
        """
        tensor = self.inputs[index][0]
        (positions, n_in), (positions_out, n_out) = self.tensors[tensor], self.tensors[index + 1]
        row = {
            "kind": kind.code,
            "n_in": n_in,
            "n_out": n_out,
            "positions": positions,
            "positions_out": positions_out,
            "input": source,
            "ld_in": leading_dimension(n_in),
            "second": -1,
            "output": output,
            "ld_out": leading_dimension(n_out),
            "pre": output,
            "kernel": -1,
            "bias": -1,
            "mean": -1,
            "variance": -1,
            "start": -1,
            **function.fields(np.float32),
            **kind.columns(values),
        }
        self._engine_rows.append(row)
        return len(self._engine_rows) - 1

    def clamp(self, limits: tuple[int, int], zero_point: int) -> dict[str, int]:
        """Return the fields of a row that clamps, counted from the type's minimum.

        Parameters
        ----------
        limits : (int, int)
            The least and greatest integer that its activation leaves possible.
        zero_point : int
            Zero point of what is clamped.
        """
        low, high = limits
        return {"zero_point": zero_point - self.minimum, "low": low - self.minimum, "high": high - self.minimum}

    # -- the finished program --

    def tables(self, softmax: bool) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]], npt.NDArray[Any]]:
        """Return rows, vectors and form of the integer program.

        Parameters
        ----------
        softmax : bool
            Whether its outputs go through a softmax in float.
        """
        last, shown = len(self.tensors) - 1, self.formats[-1]
        output = self._floats(last) if shown is None else self._bytes_of[(last, *shown)]
        layers, form = np.zeros(len(self._rows), tables.LAYER), np.zeros(1, tables.FORM)
        for record, row in zip(layers, self._rows, strict=True):
            for key, value in row.items():
                record[key] = value
        (positions, n), (positions_out, n_out) = self.tensors[0], self.tensors[last]
        for key, value in {
            "width": self._byte_width,
            "float_width": self._float_width if self._engine_rows else 0,
            "whole": WHOLE if self._columns_of else 1,
            "copies_input": self._copies_input,
            "positions": positions,
            "ld_input": leading_dimension(n),
            "rounding": rounding.CODES[self.rounding],
            "softmax": softmax,
            "integers": shown is not None,
            "output": output,
            "n_out": n_out,
            "positions_out": positions_out,
            "ld_output": leading_dimension(n_out),
            "output_zero_point": 0 if shown is None else shown[1] - self.minimum,
            "output_scale": 1.0 if shown is None else shown[0],
        }.items():
            form[0][key] = value
        return layers, [self._vector(name) for name in tables.VECTORS], form

    def sparse_vectors(self) -> tuple[npt.NDArray[Any], ...] | None:
        """Return the vectors of `nbdense.quant.kernels.tables.SPARSE`; None where no layer is sparse."""
        return tuple(map(self._vector, tables.SPARSE)) if self.sparse.blocks else None

    def floats(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Return the engine's rows and their parameters; None where no layer is float."""
        if not self._engine_rows:
            return None
        layers = np.zeros(len(self._engine_rows), engine.LAYER)
        for record, row in zip(layers, self._engine_rows, strict=True):
            for key, value in row.items():
                record[key] = value
        layers["start"] = np.where(layers["start"] < 0, self._params_size, layers["start"])
        params = aligned_zeros(self._params_size + int(layers["ld_out"].max()), np.float32)
        for at, matrix, ld in self._params:
            params[at : at + matrix.shape[0] * ld].reshape(-1, ld)[:, : matrix.shape[1]] = matrix
        return layers, params
