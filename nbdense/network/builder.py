"""NetworkBuilder: layers write themselves into one, row by row; `finish` lays out the tables and the vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.elementwise.activations import ACTIVATIONS, ON_DEMAND, Activation
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import ACTIVATION, ADD, DENSE, FAKE_QUANT, RESHAPE, RMS_NORM, RowKind
from nbdense.engine.tables import LAYER, PAD, SEGMENT, leading_dimension, padded
from nbdense.network.network import Network, Parameter, Projection


class NetworkBuilder:
    """A collector of rows, buffers and parameters.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of one row of data; its last axis is the columns, the others together are positions.
    dtype : {"float32", "float64"}
        Type of parameters and computation.

    Attributes
    ----------
    output : int
        The buffer that the next row reads.
    shape : tuple of int
        What is in it of one row of data.
    quantization : dict of str to object
        What is to be known of the fake quantization in the network; see `Network.quantization`.
    """

    def __init__(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.input_shape = self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self._rows: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._parameters: list[Parameter] = []
        self._segments: list[tuple[Any, ...]] = []
        self._initial: list[npt.NDArray[Any]] = []
        self._on_demand: list[Activation] = []
        self._projections: dict[str, Projection] = {}
        self._size = 0
        self._aside = 0
        self._width = 0
        self._pinned: set[int] = set()
        self.quantization: dict[str, Any] = {}
        self.output = self._buffer()

    @property
    def n(self) -> int:
        """Columns of the current output."""
        return self.shape[-1]

    @property
    def positions(self) -> int:
        """Rows of columns that a row of data has in the current output."""
        return math.prod(self.shape[:-1])

    def _buffer(self) -> int:
        """Add a buffer for what has the current shape; return its name, its first column in the workspace."""
        name = self._width
        self._width += self.positions * leading_dimension(self.n)
        return name

    def parameter(
        self,
        name: str,
        value: npt.NDArray[Any],
        *,
        trainable: bool = True,
        l1: float = 0.0,
        l2: float = 0.0,
        decay: float = 1.0,
        projection: Projection | None = None,
    ) -> int:
        """Add a parameter tensor that holds ``value`` (one- or two-dimensional); return its offset."""
        if projection is not None:
            self._projections[name] = projection
        rows = 1 if value.ndim == 1 else value.shape[0]
        length = rows * leading_dimension(value.shape[-1])
        offset = self._size
        self._parameters.append(Parameter(name, value.shape, offset, length))
        self._segments.append((offset, length, int(trainable), l1, l2, decay))
        self._initial.append(value)
        self._size += length
        return offset

    def pin(self) -> int:
        """Promise that the current output stays as it is, for a later `add`; returns its buffer."""
        self._pinned.add(self.output)
        return self.output

    def dense(self, name: str, n_out: int, activation: Activation, kernel: int, bias: int) -> None:
        """Add a dense row: activation(x kernel + bias) on the last axis."""
        row = self._row(DENSE, name, n_out, kernel=kernel, bias=bias)
        row["transposed"] = self._take_aside(padded(n_out) * row["ld_in"])
        self._set_activation(row, activation)

    def activation(self, name: str, activation: Activation) -> None:
        """Add an activation, in the row before where that is linear and dense and nothing else reads it."""
        previous = self._rows[-1] if self._rows else None
        fits = previous is not None and previous["kind"] == DENSE.code and previous["activation"] == 0
        if fits and previous is not None and self.output not in self._pinned:
            self._set_activation(previous, activation)
            return
        row = self._row(ACTIVATION, name, self.n)
        self._set_activation(row, activation)
        if not activation.from_output:
            row["pre"] = row["input"]

    def row(self, kind: RowKind, name: str, **values: Any) -> None:
        """Add a row of a kind that leaves the shape as it is.

        Parameters
        ----------
        kind : RowKind
            Its kind.
        name : str
            The name of its layer.
        **values
            Offsets of its parameters, -1 for one that it lacks, and its numbers, by the names that the kind has for
            them.
        """
        row = self._row(kind, name, self.n, **values)
        if kind.keeps:
            row["pre"] = self._buffer()
        row["transposed"] = self._take_aside(kind.aside * leading_dimension(self.n))

    def vector(self, name: str, value: npt.NDArray[Any]) -> None:
        """Add a vector of parameters by itself: to a network that is updated, and never run.

        Parameters
        ----------
        name : str
            The name of the parameter.
        value : ndarray, (n,)
            Its first value.
        """
        self._row(RMS_NORM, name, len(value), scale=self.parameter(name, value))

    def add(self, name: str, other: int) -> None:
        """Add the sum of the current output and a pinned buffer of the same shape."""
        self.row(ADD, name, second=other)

    def fake_quant(self, name: str, low: float, high: float, least: int, most: int, factors: int) -> None:
        """Add a rounding of the values to integers in least..most, which stand for low..high.

        ``factors`` is the offset of two numbers that low and high are multiplied by, -1 where these stay as they are.
        """
        row = self._row(FAKE_QUANT, name, self.n, factors=factors, low=low, high=high, least=least, most=most)
        if factors >= 0:
            row["pre"] = self._width  # two sums of whole vectors for each row of columns, for the factors' gradients
            self._width += self.positions * 2 * PAD

    def round_kernel(self, name: str, limit: int) -> None:
        """Let the last row, which is dense, read its kernel rounded to integers of at most ``limit`` times a scale.

        Each column's scale, first its largest weight over ``limit``, is a parameter of that name that is not trained.
        """
        row = self._rows[-1]
        at = next(i for i, parameter in enumerate(self._parameters) if parameter.offset == row["kernel"])
        largest = np.abs(self._initial[at]).max(axis=0).astype(np.float32) / np.float32(limit)
        row["scales"] = self.parameter(name, np.where(largest == 0, np.float32(1.0), largest), trainable=False)
        row["limit"] = limit

    def flatten(self, name: str) -> None:
        """Add a change of shape: all positions' columns, end to end."""
        if self.positions > 1:
            if self._rows or self.output in self._pinned:
                positions, n = self.positions, self.n
                row = self._row(RESHAPE, name, n)
                self.shape = (positions * n,)
                self._width = row["output"]
                self._buffer()
                row["n_out"], row["positions_out"], row["ld_out"] = self.n, 1, leading_dimension(self.n)
                return
            self._width = 0  # the input is read as one row of columns at once
            self.shape = (math.prod(self.shape),)
            self._buffer()
        self.shape = (math.prod(self.shape),)

    def _take_aside(self, size: int) -> int:
        self._aside += size
        return self._aside - size

    def _row(self, kind: RowKind, name: str, n_out: int, **values: Any) -> dict[str, Any]:
        """Add a row from the current output to a new buffer, the current one from now on; ``values`` as for `row`."""
        n_in, source = self.n, self.output
        self.shape = (*self.shape[:-1], n_out)
        self.output = self._buffer()
        row = {
            "kind": kind.code,
            "number": len(self._rows),
            "n_in": n_in,
            "n_out": n_out,
            "positions": self.positions,
            "positions_out": self.positions,
            "input": source,
            "ld_in": leading_dimension(n_in),
            "second": -1,
            "output": self.output,
            "ld_out": leading_dimension(n_out),
            "pre": self.output,
            "kernel": -1,
            "bias": -1,
            "mean": -1,
            "variance": -1,
            "scales": -1,
            "lower": -math.inf,
            "upper": math.inf,
            **kind.columns(values),
        }
        self._rows.append(row)
        self._names.append(name)
        return row

    def _set_activation(self, row: dict[str, Any], activation: Activation) -> None:
        code = activation.code
        if code >= ON_DEMAND:
            if activation not in self._on_demand:
                if activation.own and any(other.name == activation.name for other in self._on_demand):
                    raise ValueError(f"two custom activations of this model have the name {activation.name!r}")
                self._on_demand.append(activation)
            code = ON_DEMAND + self._on_demand.index(activation)
        row |= activation.fields(self.dtype) | {"activation": code}
        if not activation.from_output and row["kind"] == DENSE.code:
            row["pre"] = self._buffer()

    def finish(self) -> Network:
        """Return the network, its parameters at their initial values."""
        if not self._rows:
            self.activation("identity", ACTIVATIONS["linear"])
        layers = np.zeros(len(self._rows), LAYER)
        for i, row in enumerate(self._rows):
            for key, value in row.items():
                layers[i][key] = value
        # Zeros at the end, outside every segment: what layers without a bias add their product to.
        layers["start"] = np.where(layers["bias"] < 0, self._size, layers["bias"])
        params = aligned_zeros(self._size + int(layers["ld_out"].max(initial=0)), self.dtype)
        network = Network(
            self.dtype,
            layers,
            np.array(self._segments, SEGMENT),
            self._parameters,
            params,
            self._names,
            self._width,
            self._aside,
            self.input_shape,
            self.shape,
            on_demand=tuple(self._on_demand),
            projections=self._projections,
            quantization=self.quantization,
        )
        for parameter, value in zip(self._parameters, self._initial, strict=True):
            network.tensor(parameter)[...] = value
        return network
