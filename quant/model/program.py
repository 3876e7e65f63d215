"""A quantized network laid out for the integer program, and its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import thread_pool
from nbdense.activations import CUSTOM
from nbdense.engine import tables as engine
from nbdense.engine.tables import aligned_zeros, leading_dimension
from nbdense.quant.kernels import dynamic, integer, rounding
from nbdense.quant.kernels.microkernel import GROUP, OFFSET, pack
from nbdense.quant.model.float_layers import ENGINE_KINDS
from nbdense.quant.model.network import (
    LIMITS,
    DynamicDense,
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedNetwork,
    QuantizedSoftmax,
    WeightOnlyDense,
)

_NO_INTEGERS, _NO_VALUES = np.empty((0, 0), np.uint8), np.empty((0, 0), np.float32)
_COLUMN_DTYPES = tuple(integer.VECTORS.values())[1:-1]


class Program:
    """The tables and packed vectors of one network.

    Parameters
    ----------
    network : QuantizedNetwork
        What to run; not changed.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        self._network = network
        self._dtype = np.dtype(network.activation_dtype)
        layout = _Layout(network)
        self._tables = layout.tables()
        self._packed = None if layout.dynamic else _packed(*self._tables)
        self._floats = layout.floats()
        self._biases = layout.float_biases() if layout.dynamic else None
        self._n_out = network.n_out
        self._flops_a_row = 2.0 * sum(
            layer.positions * layer.n_in * layer.n_out for layer in network.layers if _multiplies(layer)
        )

    def integers(self, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The last layer's outputs, before a softmax: (rows, n_out) of the activation dtype.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
            Rows; a NaN is taken as zero.
        """
        out = np.empty((x.shape[0], self._n_out), np.uint8)
        self._run(x, out, _NO_VALUES)
        if self._dtype == np.uint8:
            return out
        out ^= np.uint8(128)  # counted from -128, modulo 256
        return out.view(np.int8)

    def values(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The outputs as float32, (rows, n_out): dequantized, through the softmax where there is one.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
            Rows; one that holds a NaN gives a row of NaN.
        """
        out = np.empty((x.shape[0], self._n_out), np.float32)
        self._run(x, _NO_INTEGERS, out)
        return out

    def _run(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        flops = self._flops_a_row * x.shape[0]
        if self._packed is None:
            with thread_pool.region(thread_pool.worthwhile(flops)) as threads:
                arguments = (*self._tables, self._floats, self._biases, x, values, threads)
                dynamic.predict_dynamic[threads > 1](*arguments)
        elif flops < thread_pool.LEAST_PARALLEL_FLOPS:  # a few microseconds: no time for more questions
            integer.predict[0](self._packed, self._floats, x, integers, values, 1)
        else:
            with thread_pool.region(thread_pool.worthwhile(flops)) as threads:
                integer.predict[threads > 1](self._packed, self._floats, x, integers, values, threads)


def _multiplies(layer: Any) -> bool:
    dense = isinstance(layer, QuantizedDense | DynamicDense | WeightOnlyDense)
    return dense or (isinstance(layer, FloatLayer) and layer.what == "dense")


def _packed(
    layers: npt.NDArray[Any], vectors: tuple[npt.NDArray[Any], ...], form: npt.NDArray[Any]
) -> npt.NDArray[np.uint8]:
    """One array of bytes of a static program: see `nbdense.quant.kernels.integer.PARTS`."""
    parts = np.zeros(1, integer.PARTS)
    at = -(-integer.FORM_END // 64) * 64
    sources = (*vectors, layers)  # all but the last are whole cache lines
    for name, source in zip(integer.PARTS.names or (), sources, strict=False):
        parts[0][name] = at
        at += source.nbytes
    parts[0]["end"] = at
    packed = aligned_zeros(at, np.uint8)
    packed[: integer.FORM_AT], packed[integer.FORM_AT : integer.FORM_END] = parts.view(np.uint8), form.view(np.uint8)
    for name, source in zip(integer.PARTS.names or (), sources, strict=False):
        start = int(parts[0][name])
        packed[start : start + source.nbytes] = source.view(np.uint8)
    return packed


class _Layout:
    """Writes a network's layers into rows, packed weights and columns.

    A tensor may have a buffer of bytes, one of floats, or both: what reads it in the other form than it was written
    in gets a row in front that converts it, once.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        self.network = network
        self.minimum = LIMITS[network.activation_dtype][0]
        self.dynamic = any(isinstance(layer, DynamicDense) for layer in network.layers)
        self.rows: list[dict[str, Any]] = []
        self.engine_rows: list[dict[str, Any]] = []
        self.kernels: list[npt.NDArray[np.int8]] = []
        self.packed_size = 0
        self.columns: list[tuple[npt.NDArray[Any], ...]] = []
        self.column_biases: list[npt.NDArray[np.float32]] = []
        self.channels = 0
        self.tables_of_bytes: list[npt.NDArray[np.uint8]] = []
        self.params: list[tuple[int, npt.NDArray[Any], int]] = []
        self.params_size = 0
        self.calls: list[Any] = []
        positions, n = network.tensors[0]
        self.copies_input = False
        self.byte_width, self.float_width = 0, positions * leading_dimension(n)
        self.floats_of: dict[int, int] = {0: 0}  # buffers by tensor
        self.bytes_of: dict[tuple[int, float, int], int] = {}  # by tensor and format
        write: dict[type, Callable[[int, Any], None]] = {
            QuantizedDense: self._dense,
            QuantizedAdd: self._add,
            QuantizedActivation: self._activation,
            QuantizedSoftmax: self._softmax,
            QuantizedFlatten: self._flatten,
            DynamicDense: self._dynamic,
            WeightOnlyDense: self._weight_only,
            FloatLayer: self._float,
        }
        for index, layer in enumerate(network.layers):
            write[type(layer)](index, layer)

    # -- buffers --

    def _byte_buffer(self, tensor: int) -> int:
        positions, n = self.network.tensors[tensor]
        at = self.byte_width
        self.byte_width += positions * leading_dimension(n)
        return at

    def _float_buffer(self, tensor: int) -> int:
        positions, n = self.network.tensors[tensor]
        at = self.float_width
        self.float_width += positions * leading_dimension(n)
        return at

    def _bytes(self, index: int, which: int = 0) -> int:
        """The buffer of bytes that a layer's input is in, behind a row that quantizes it where it is float."""
        tensor = self.network.inputs_of(index)[which]
        layer = self.network.layers[index]
        wanted = layer.input_formats[which]
        assert wanted is not None
        key = (tensor, *wanted)
        if key not in self.bytes_of:
            self.bytes_of[key] = output = self._byte_buffer(tensor)
            self._row(
                integer.QUANTIZE,
                tensor,
                tensor,
                input=self.floats_of[tensor],
                output=output,
                zero_point=wanted[1] - self.minimum,
                channels=self._columns(multipliers=np.array([wanted[0]])),
            )
        return self.bytes_of[key]

    def _floats(self, index: int, which: int = 0) -> int:
        """The buffer of floats that a layer's input is in, behind a row that dequantizes it where it is bytes."""
        tensor = self.network.inputs_of(index)[which]
        if tensor not in self.floats_of:
            form = self.network.formats[tensor]
            assert form is not None
            self.floats_of[tensor] = output = self._float_buffer(tensor)
            self._row(
                integer.DEQUANTIZE,
                tensor,
                tensor,
                input=self.bytes_of[(tensor, *form)],
                output=output,
                zero_point=form[1] - self.minimum,
                channels=self._columns(multipliers=np.array([form[0]])),
            )
        return self.floats_of[tensor]

    def _row(self, kind: int, source: int, target: int, **fields: Any) -> None:
        """A row from one tensor to another."""
        positions, n_in = self.network.tensors[source]
        n_out = self.network.tensors[target][1]
        row = {
            "kind": kind,
            "positions": positions,
            "n_in": n_in,
            "n_out": n_out,
            "ld_in": leading_dimension(n_in),
            "ld_out": leading_dimension(n_out),
            "kernel_zero_points": -1,
            "table": -1,
            "high": 255,
            **fields,
        }
        self.rows.append(row)

    def _integer_row(self, kind: int, index: int, **fields: Any) -> None:
        """A row that writes a layer's output as bytes."""
        layer, target = self.network.layers[index], index + 1
        form = layer.output_format
        assert form is not None
        source = self._bytes(index)
        self.bytes_of[(target, *form)] = output = self._byte_buffer(target)
        self._row(kind, self.network.inputs_of(index)[0], target, input=source, output=output, **fields)

    # -- vectors --

    def _columns(self, count: int = 0, **values: npt.NDArray[Any]) -> int:
        """Room for columns of bias, multipliers, fixed and shifts; returns where it begins."""
        arrays = [values.get(name) for name in ("bias", "multipliers", "fixed", "shifts")]
        count = max([count, *(len(array) for array in arrays if array is not None)])
        count = engine.padded(count)
        filled = []
        for dtype, array in zip(_COLUMN_DTYPES, arrays, strict=True):
            column = np.zeros(count, dtype)
            if array is not None:
                column[: len(array)] = array
            filled.append(column)
        self.columns.append(tuple(filled))
        biases = np.zeros(count, np.float32)
        if "biases" in values:
            biases[: len(values["biases"])] = values["biases"]
        self.column_biases.append(biases)
        at, self.channels = self.channels, self.channels + count
        return at

    def _kernel(self, kernel: npt.NDArray[np.int8]) -> int:
        n_in, n_out = kernel.shape
        at = self.packed_size
        self.kernels.append(kernel)
        self.packed_size += -(-n_in // GROUP) * leading_dimension(n_out) * GROUP
        return at

    def _zero_points(self, layer: QuantizedDense | DynamicDense) -> int:
        """Lay out the zero points of a layer's weights among the biases; returns where they begin, -1 without any."""
        return -1 if layer.kernel_zero_points is None else self._columns(bias=layer.kernel_zero_points)

    def _table(self, table: npt.NDArray[Any]) -> int:
        self.tables_of_bytes.append((table.astype(np.int16) - self.minimum).astype(np.uint8))
        return 256 * (len(self.tables_of_bytes) - 1)

    def _parameter(self, value: npt.NDArray[Any]) -> int:
        """Where a tensor of the engine's will lie, its rows padded."""
        matrix = value.reshape(-1, value.shape[-1])
        ld = leading_dimension(matrix.shape[1])
        at = self.params_size
        self.params.append((at, matrix, ld))
        self.params_size += matrix.shape[0] * ld
        return at

    # -- layers --

    def _clamp(self, layer: Any, zero_point: int) -> dict[str, int]:
        low, high = layer.clamp(self.network.activation_dtype, self.network.rounding)
        return {"zero_point": zero_point - self.minimum, "low": low - self.minimum, "high": high - self.minimum}

    def _dense(self, index: int, layer: QuantizedDense) -> None:
        zero_point = layer.input_zero_point - self.minimum - OFFSET
        # May wrap, as the sums that are added to it will.
        bias = (layer.bias - zero_point * layer.weights().sum(axis=0, dtype=np.int64)).astype(np.int32)
        columns = {"bias": bias, "multipliers": layer.bias_scales() / np.float32(layer.pre_scale)}
        if self.network.rounding == "tflite":
            columns["fixed"], columns["shifts"] = np.array(layer.fixed_point_multipliers()).T
        self._integer_row(
            integer.PRODUCT,
            index,
            kernel=self._kernel(layer.kernel),
            kernel_zero_points=self._zero_points(layer),
            channels=self._columns(leading_dimension(layer.n_out), **columns),
            table=-1 if layer.table is None else self._table(layer.table),
            **self._clamp(layer, layer.pre_zero_point),
        )

    def _add(self, index: int, layer: QuantizedAdd) -> None:
        second = self._bytes(index, 1)
        columns = {
            "bias": np.array(layer.input_zero_points) - self.minimum,
            "multipliers": np.array(layer.input_scales, np.float32) / np.float32(layer.output_scale),
        }
        if self.network.rounding == "tflite":
            columns["fixed"], columns["shifts"] = np.array(layer.fixed_point_multipliers()).T
        clamp = self._clamp(layer, layer.output_zero_point)
        self._integer_row(integer.SUM, index, second=second, channels=self._columns(0, **columns), **clamp)

    def _activation(self, index: int, layer: QuantizedActivation) -> None:
        self._integer_row(integer.LOOKUP, index, table=self._table(layer.table))

    def _softmax(self, index: int, layer: QuantizedSoftmax) -> None:
        channels = self._columns(fixed=layer.exponentials)
        self._integer_row(integer.SOFTMAX_OF_BYTES, index, channels=channels)

    def _flatten(self, index: int, layer: QuantizedFlatten) -> None:
        self._integer_row(integer.RESHAPE, index)

    def _dynamic(self, index: int, layer: DynamicDense) -> None:
        sums = -layer.weights().sum(axis=0, dtype=np.int64)
        columns = {"bias": sums, "multipliers": layer.kernel_scales}
        if layer.bias is not None:
            columns["biases"] = layer.bias
        source = self._floats(index)
        self.floats_of[index + 1] = output = self._float_buffer(index + 1)
        activation = self._engine_row(engine.ACTIVATION, index, source, output, layer.function)
        self._row(
            integer.DYNAMIC,
            self.network.inputs_of(index)[0],
            index + 1,
            input=source,
            output=output,
            kernel=self._kernel(layer.kernel),
            kernel_zero_points=self._zero_points(layer),
            channels=self._columns(leading_dimension(layer.n_out), **columns),
            table=activation,
        )

    def _weight_only(self, index: int, layer: WeightOnlyDense) -> None:
        tensors = {"kernel": layer.dequantized()}
        if layer.bias is not None:
            tensors["bias"] = layer.bias
        self._engine(index, "dense", tensors, layer)

    def _float(self, index: int, layer: FloatLayer) -> None:
        self._engine(index, layer.what, dict(layer.tensors), layer)

    def _engine(self, index: int, what: str, tensors: dict[str, npt.NDArray[Any]], layer: Any) -> None:
        """A row of the engine's."""
        sources = [self._floats(index, which) for which in range(len(self.network.inputs_of(index)))]
        self.copies_input |= what != "dense" and 0 in sources
        self.floats_of[index + 1] = output = self._float_buffer(index + 1)
        names = {"kernel": "kernel", "bias": "bias", "gamma": "kernel", "beta": "bias"}
        fields: dict[str, Any] = {
            names.get(name, name): self._parameter(value) for name, value in tensors.items() if value is not None
        }
        fields["start"] = fields.get("bias", -1)
        if len(sources) > 1:
            fields["second"] = sources[1]
        number = self._engine_row(ENGINE_KINDS[what], index, sources[0], output, layer.function, **fields)
        if what in ("batch_norm", "layer_norm"):
            self.engine_rows[number]["alpha"] = layer.alpha
        source = self.network.inputs_of(index)[0]
        self._row(integer.FLOAT, source, index + 1, input=sources[0], output=output, kernel=number)

    def _engine_row(self, kind: int, index: int, source: int, output: int, function: Any, **fields: Any) -> int:
        """One row for the engine's table; returns its number."""
        tensor = self.network.inputs_of(index)[0]
        (positions, n_in), (positions_out, n_out) = self.network.tensors[tensor], self.network.tensors[index + 1]
        row = {
            "kind": kind,
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
            "activation": min(function.code, CUSTOM),
            "alpha": function.alpha,
            "lower": function.lower,
            "upper": function.upper,
            **fields,
        }
        if function.code >= CUSTOM:
            row["call_forward"], row["call_backward"] = function.calls(np.float32)
            self.calls.append(function)
        self.engine_rows.append(row)
        return len(self.engine_rows) - 1

    # -- what comes of it --

    def tables(self) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...], npt.NDArray[Any]]:
        """Rows, vectors and form of the integer program."""
        network = self.network
        layers, form = np.zeros(len(self.rows), integer.LAYER), np.zeros(1, integer.FORM)
        for record, row in zip(layers, self.rows, strict=True):
            for key, value in row.items():
                record[key] = value
        last, shown = len(network.layers), network.formats[-1]
        (positions, n), (positions_out, n_out) = network.tensors[0], network.tensors[last]
        output = self.floats_of[last] if shown is None else self.bytes_of[(last, *shown)]
        for key, value in {
            "width": self.byte_width,
            "float_width": self.float_width if self.engine_rows else 0,
            "copies_input": self.copies_input,
            "positions": positions,
            "ld_input": leading_dimension(n),
            "rounding": rounding.CODES[network.rounding],
            "softmax": network.final_activation == "softmax",
            "integers": shown is not None,
            "output": output,
            "n_out": n_out,
            "positions_out": positions_out,
            "ld_output": leading_dimension(n_out),
            "output_zero_point": 0 if shown is None else shown[1] - self.minimum,
            "output_scale": 1.0 if shown is None else shown[0],
        }.items():
            form[0][key] = value
        packed = aligned_zeros(self.packed_size, np.int8)
        at = 0
        for kernel in self.kernels:
            n_in, columns = kernel.shape
            groups, ld = -(-n_in // GROUP), leading_dimension(columns)
            pack(kernel, packed[at : at + groups * ld * GROUP].reshape(groups, ld, GROUP))
            at += groups * ld * GROUP
        joined = [aligned_zeros(self.channels, dtype) for dtype in _COLUMN_DTYPES]
        at = 0
        for columns_of_row in self.columns:
            for target, column in zip(joined, columns_of_row, strict=True):
                target[at : at + column.size] = column
            at += columns_of_row[0].size
        tables = self.tables_of_bytes
        return layers, (packed, *joined, np.concatenate(tables) if tables else np.zeros(0, np.uint8)), form

    def floats(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """The engine's rows and their parameters; None where no layer is float."""
        if not self.engine_rows:
            return None
        layers = np.zeros(len(self.engine_rows), engine.LAYER)
        for record, row in zip(layers, self.engine_rows, strict=True):
            for key, value in row.items():
                record[key] = value
        layers["start"] = np.where(layers["start"] < 0, self.params_size, layers["start"])
        params = aligned_zeros(self.params_size + int(layers["ld_out"].max()), np.float32)
        for at, matrix, ld in self.params:
            params[at : at + matrix.shape[0] * ld].reshape(-1, ld)[:, : matrix.shape[1]] = matrix
        return layers, params

    def float_biases(self) -> npt.NDArray[np.float32]:
        """One a column: those of dynamic layers."""
        return np.concatenate([np.zeros(0, np.float32), *self.column_biases])
