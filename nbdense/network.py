"""The Network: a model as data. One flat parameter vector and the tables that say what lies where.

Everything below the front ends reads these tables and nothing else: the engine walks ``layers`` and ``slabs``,
optimizers run over ``segments`` of flat vectors, quant and export read ``rows()`` and ``tensor()``.

Shapes inside are padded: a tensor's rows are ``leading_dimension(n)`` elements apart, so that every row starts
on a vector boundary; the padding holds zeros, always. ``Network.tensor`` and what is built on it show the unpadded
views; files and users never see the padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import RELU, Activation, activation_by_code

DENSE = 0  # kinds of row

ADD_DELTA = 1  # flags: the input's delta is added to, not set: a later row has set it
NO_DELTA = 2  # nothing before this row learns: its input's delta is not wanted
GATE_DELTA = 4  # the input comes from a relu: its delta passes only where the input is above zero
DELTA_GATED = 8  # this row is such a relu: its output's delta has passed the gate when it arrives

# A row names its buffers by their first column in the workspace: buffer b of m rows is the (m, ld) matrix that starts
# at element b * capacity. The network's input is buffer 0.
LAYER = np.dtype(
    [
        ("kind", np.int64),
        ("n_in", np.int64),
        ("n_out", np.int64),
        ("input", np.int64),
        ("ld_in", np.int64),
        ("output", np.int64),
        ("ld_out", np.int64),
        ("kernel", np.int64),  # offsets into the parameter vector; -1: none
        ("bias", np.int64),
        ("start", np.int64),  # offset of what the product is added to: the bias, or zeros
        ("transposed", np.int64),  # offset of the kernel's transpose among the transposes
        ("activation", np.int64),
        ("flags", np.int64),
        ("alpha", np.float64),  # the activation's parameter
        ("lower", np.float64),  # clamp in the product's epilogue
        ("upper", np.float64),
    ]
)

# One row a parameter tensor.
SEGMENT = np.dtype(
    [
        ("offset", np.int64),
        ("length", np.int64),  # padding included
        ("trainable", np.int64),
        ("l1", np.float64),
        ("l2", np.float64),
        ("decay", np.float64),  # factor on the optimizer's weight decay: 0 exempts
    ]
)

# The unit of work of the update: rows first..last of one layer's kernel, or (first = -1) its bias.
SLAB = np.dtype(
    [
        ("layer", np.int64),
        ("segment", np.int64),
        ("first", np.int64),
        ("last", np.int64),
        ("before", np.int64),  # elements of all earlier slabs: threads take equal shares of elements
    ]
)

PAD = 16  # elements: a whole vector of every dtype and CPU
SLAB_ROWS = 48  # at most: a multiple of every tile height and vector width
SHARED_SIZE = 32768  # elements from which an update may be worth sharing: then there are slabs to share evenly
SLABS = 64  # about how many


def leading_dimension(n: int) -> int:
    """Elements between the rows of an ``n``-column matrix: ``n`` padded, and never a multiple of 128.

    Rows a power of two apart fall into the same few cache sets, and a column of them would not stay cached.
    """
    padded = _padded(n)
    return padded + PAD if padded % 128 == 0 else padded


def _padded(n: int) -> int:
    return -(-n // PAD) * PAD


def aligned_zeros(shape: int | tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that start on a 64-byte boundary."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    raw = np.zeros(count * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Parameter:
    """A named tensor of the parameter vector: its place, and the shape that users see."""

    name: str
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True)
class Row:
    """One layer row, read for quantizers and exporters: unpadded views and the activation's table row."""

    index: int
    name: str
    kind: int
    n_in: int
    n_out: int
    input: int
    output: int
    kernel: npt.NDArray[Any]
    bias: npt.NDArray[Any] | None
    activation: Activation
    alpha: float


@dataclass
class Network:
    """A network's tables and parameters.

    Attributes
    ----------
    layers : structured array of `LAYER`
        The rows, in the order in which they run.
    segments : structured array of `SEGMENT`
        One a parameter tensor, in the order of ``parameters``.
    parameters : list of Parameter
        Names and shapes; kernels are (n_in, n_out), as in Keras.
    params : ndarray, one-dimensional, float32 or float64
        All parameters, padding included, aligned to 64 bytes; then zeros, for layers without a bias.
    names : list of str
        The name of each row's layer.
    width : int
        Columns of the workspace: the leading dimensions of all buffers together.
    n_in, n_out : int
        Widths of the first row's input and of the last row's output.
    multiply_adds : int
        Of one row of data on its way forward.
    mask : ndarray or None
        0 or 1 for each element of ``params``: training leaves what is masked by 0 at zero (pruning).
    """

    dtype: np.dtype[Any]
    layers: npt.NDArray[Any]
    segments: npt.NDArray[Any]
    parameters: list[Parameter]
    params: npt.NDArray[Any]
    names: list[str]
    width: int
    mask: npt.NDArray[Any] | None = None
    slabs: npt.NDArray[Any] = field(init=False)
    n_in: int = field(init=False)
    n_out: int = field(init=False)
    multiply_adds: int = field(init=False)

    def __post_init__(self) -> None:
        self.slabs = _slabs(self)
        self.n_in = int(self.layers[0]["n_in"])
        self.n_out = int(self.layers[-1]["n_out"])
        self.multiply_adds = int((self.layers["n_in"] * self.layers["n_out"]).sum())

    @property
    def transposes_size(self) -> int:
        """Elements that the transposes of all kernels take."""
        last = self.layers[-1]
        return int(last["transposed"] + _padded(int(last["n_out"])) * last["ld_in"])

    def tensor(self, parameter: Parameter, vector: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """View of one tensor, unpadded, in ``vector`` (default: the parameters; or gradients, a mask, a slot)."""
        flat = self.params if vector is None else vector
        flat = flat[parameter.offset : parameter.offset + parameter.length]
        if len(parameter.shape) == 1:
            return flat[: parameter.shape[0]]
        return flat.reshape(parameter.shape[0], -1)[:, : parameter.shape[1]]

    def tensors(self, vector: npt.NDArray[Any] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Views of all tensors by name."""
        return {p.name: self.tensor(p, vector) for p in self.parameters}

    def rows(self) -> Iterator[Row]:
        """The layer rows, read."""
        at = {p.offset: p for p in self.parameters}
        for i, row in enumerate(self.layers):
            yield Row(
                index=i,
                name=self.names[i],
                kind=int(row["kind"]),
                n_in=int(row["n_in"]),
                n_out=int(row["n_out"]),
                input=int(row["input"]),
                output=int(row["output"]),
                kernel=self.tensor(at[int(row["kernel"])]),
                bias=self.tensor(at[int(row["bias"])]) if row["bias"] >= 0 else None,
                activation=activation_by_code(int(row["activation"])),
                alpha=float(row["alpha"]),
            )

    def copy(self) -> Network:
        """A network of the same tables with parameters of its own."""
        params = aligned_zeros(self.params.size, self.dtype)
        params[:] = self.params
        return Network(
            self.dtype,
            self.layers.copy(),
            self.segments.copy(),
            list(self.parameters),
            params,
            list(self.names),
            self.width,
            None if self.mask is None else self.mask.copy(),
        )


class NetworkBuilder:
    """Collects rows, buffers and parameters; `finish` lays out the vectors. Layers write themselves into one."""

    def __init__(self, n_in: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self._rows: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._parameters: list[Parameter] = []
        self._segments: list[tuple[Any, ...]] = []
        self._initial: list[npt.NDArray[Any]] = []
        self._size = 0
        self._transposes = 0
        self._width = 0
        self.widths: dict[int, int] = {}  # columns of each buffer
        self.output = self.buffer(n_in)

    def buffer(self, n: int) -> int:
        """A new buffer of ``n`` columns; returns its name, its first column in the workspace."""
        name = self._width
        self.widths[name] = n
        self._width += leading_dimension(n)
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
    ) -> int:
        """A new parameter tensor holding ``value`` (one- or two-dimensional); returns its offset."""
        rows = 1 if value.ndim == 1 else value.shape[0]
        length = rows * leading_dimension(value.shape[-1])
        offset = self._size
        self._parameters.append(Parameter(name, value.shape, offset, length))
        self._segments.append((offset, length, int(trainable), l1, l2, decay))
        self._initial.append(value)
        self._size += length
        return offset

    def dense(
        self,
        name: str,
        n_out: int,
        activation: Activation,
        alpha: float,
        kernel: int,
        bias: int,
        *,
        trainable: bool = True,
    ) -> int:
        """A dense row from the current output to a new buffer, which becomes the current output."""
        source = self.output
        n_in = self.widths[source]
        self.output = self.buffer(n_out)
        flags = 0 if self._learns_before() else NO_DELTA
        # Backward walks the rows from the last: the last reader of a buffer sets its delta, the others add theirs.
        for row in self._rows:
            if row["input"] == source:
                row["flags"] |= ADD_DELTA
        if not flags & NO_DELTA:
            for row in self._rows:
                if row["output"] == source and row["activation"] == RELU:
                    flags |= GATE_DELTA
                    row["flags"] |= DELTA_GATED
        self._rows.append(
            {
                "kind": DENSE,
                "n_in": n_in,
                "n_out": n_out,
                "input": source,
                "ld_in": leading_dimension(n_in),
                "output": self.output,
                "ld_out": leading_dimension(n_out),
                "kernel": kernel,
                "bias": bias,
                "transposed": self._transposes,
                "activation": activation.code,
                "flags": flags,
                "alpha": alpha,
                "lower": activation.lower,
                "upper": activation.upper,
            }
        )
        self._names.append(name)
        self._transposes += _padded(n_out) * leading_dimension(n_in)
        return self.output

    def _learns_before(self) -> bool:
        """Whether a trainable parameter feeds the current output."""
        offsets = {row["kernel"] for row in self._rows} | {row["bias"] for row in self._rows}
        return any(segment[2] for segment in self._segments if segment[0] in offsets)

    def finish(self) -> Network:
        """The network, its parameters at their initial values."""
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
        )
        for parameter, value in zip(self._parameters, self._initial, strict=True):
            network.tensor(parameter)[...] = value
        return network


def _slabs(network: Network) -> npt.NDArray[Any]:
    """Cut every kernel into blocks of rows: the pieces that threads share in the update."""
    segment_at = {int(s["offset"]): i for i, s in enumerate(network.segments)}
    wanted = network.params.size // SLABS if network.params.size >= SHARED_SIZE else network.params.size
    slabs = []
    before = 0
    for i, row in enumerate(network.layers):
        n_in, ld_out = int(row["n_in"]), int(row["ld_out"])
        step = min(SLAB_ROWS, max(PAD, _padded(wanted // ld_out)))
        for first in range(0, n_in, step):
            last = min(first + step, n_in)
            slabs.append((i, segment_at[int(row["kernel"])], first, last, before))
            before += (last - first) * ld_out
        if row["bias"] >= 0:
            slabs.append((i, segment_at[int(row["bias"])], -1, 0, before))
            before += ld_out
    return np.array(slabs, SLAB)
