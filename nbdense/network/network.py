"""The Network: a model as data. One flat parameter vector and the tables that say what lies where.

Everything below the front ends reads these tables and nothing else: the engine walks ``layers`` and ``slabs``,
optimizers run over ``segments`` of flat vectors, quant and export read ``rows()`` and ``tensor()``.

Shapes inside are padded: a tensor's rows are ``leading_dimension(n)`` elements apart, so that every row starts
on a vector boundary; the padding holds zeros, always. ``Network.tensor`` and what is built on it show the unpadded
views; files and users never see the padding.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.elementwise.activations import ON_DEMAND, RELU, Activation, activation_by_code
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import ACTIVATION, ACTIVITY, DENSE, FAKE_QUANT, RowKind, kind_of, rows_of
from nbdense.engine.tables import (
    ADD_DELTA,
    ADD_DELTA_2,
    BIAS,
    DELTA_GATED,
    FACTORS,
    GATE_DELTA,
    IDLE,
    LAYER,
    MOVING,
    NO_DELTA,
    NO_DELTA_2,
    PAD,
    SLAB,
    padded,
    sources,
)

SLAB_ROWS = 48  # at most: a multiple of every tile height and vector width
SHARED_SIZE = 32768  # elements from which an update may be worth sharing: then there are slabs to share evenly
SLABS = 64  # about how many


Projection = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


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
    kind: RowKind
    n_in: int
    n_out: int
    positions: int
    input: int
    second: int
    output: int
    tensors: Mapping[str, npt.NDArray[Any]]  # by the names that its kind has for them
    settings: Mapping[str, float]
    activation: Activation

    @property
    def kernel(self) -> npt.NDArray[Any]:
        """The kernel of a dense row; of no elements where there is none."""
        return self.tensors.get("kernel", np.zeros(0))

    @property
    def bias(self) -> npt.NDArray[Any] | None:
        """The bias of a dense row, if it has one."""
        return self.tensors.get("bias")

    @property
    def label(self) -> str:
        """The layer as its user knows it, for messages: "Dense layer 'hidden' in block 'block'"."""
        return layer_label(self.kind, self.name)


def held_network(model: Any) -> Any:
    """Return the network that a model holds, and what holds none as it is.

    Parameters
    ----------
    model : object
        A model, a network, or something else, which the caller refuses.

    Raises
    ------
    NotBuiltError
        If it is a model that is not built.
    """
    # Found without being asked for: the error of a model that is not built is an AttributeError too.
    return model if inspect.getattr_static(model, "network", None) is None else model.network


def layer_label(kind: RowKind, name: str) -> str:
    """Return what the user calls the layer of a row of this kind and name, in which blocks' names go before."""
    *blocks, own = name.split("/")
    return f"{kind.layer} layer {own!r}" + "".join(f" in block {block!r}" for block in reversed(blocks))


@dataclass
class Network:
    """A network's tables and parameters.

    Attributes
    ----------
    layers : structured array of `LAYER`
        The rows, in the order in which they run in training.
    segments : structured array of `SEGMENT`
        One a parameter tensor, in the order of ``parameters``.
    parameters : list of Parameter
        Names and shapes; kernels are (n_in, n_out), as in Keras.
    params : ndarray, one-dimensional, float32 or float64
        All parameters, padding included, aligned to 64 bytes; then zeros, for layers without a bias.
    names : list of str
        The name of each row's layer.
    width : int
        Columns of the workspace: those of all buffers together, padded.
    aside : int
        Elements beside the activations: transposed kernels, statistics of batches.
    input_shape, output_shape : tuple of int
        Shapes of one row of data.
    mask : ndarray or None
        0 or 1 for each element of ``params``: training leaves what is masked by 0 at zero (pruning). None, which may be
        set at any time, lets all of them learn.
    projections : dict of str to callable
        For tensors' names, what each step of an optimizer is followed by: a function of the tensor that returns it as
        it shall be. Steps of a network that has some are taken one by one.
    quantization : dict of str to object
        What quantization the fake quantization in it stands for; empty where there is none.
    rounds_kernels : bool
        Whether rows read kernels rounded to integers' values: then they read a copy of ``params``.
    version : int
        Counts what the library has written to ``params``: steps, and whole sets of weights. Nobody sees writes through
        views.
    slabs : structured array of `SLAB`
    inference : structured array of `LAYER`
        The rows in the order in which they run when nothing is trained: without dropout, and with batch normalisation
        by its running statistics.
    evaluation : structured array of `LAYER`
        The same with the rows that add to the loss.
    n_in, n_out : int
        Elements of one row of data, before and behind.
    positions_out : int
        Rows of columns that a row of data has in the output.
    multiply_adds : int
        Multiply-adds of one row of data on its way forward.
    """

    dtype: np.dtype[Any]
    layers: npt.NDArray[Any]
    segments: npt.NDArray[Any]
    parameters: list[Parameter]
    params: npt.NDArray[Any]
    names: list[str]
    width: int
    aside: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    mask: npt.NDArray[Any] | None = None
    on_demand: tuple[Activation, ...] = ()  # activations whose compiled loops the table points at
    projections: dict[str, Projection] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    version: int = field(default=0, init=False)
    rounds_kernels: bool = field(init=False)
    slabs: npt.NDArray[Any] = field(init=False)
    inference: npt.NDArray[Any] = field(init=False)
    evaluation: npt.NDArray[Any] = field(init=False)
    n_in: int = field(init=False)
    n_out: int = field(init=False)
    positions_out: int = field(init=False)
    multiply_adds: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_in, self.n_out = math.prod(self.input_shape), math.prod(self.output_shape)
        self.positions_out = int(self.layers[-1]["positions_out"]) if self.layers.size else 1
        dense = rows_of(self.layers, DENSE)
        self.multiply_adds = int((dense["positions"] * dense["n_in"] * dense["n_out"]).sum())
        self.rounds_kernels = bool((dense["scales"] >= 0).any())
        self.refresh()

    def refresh(self) -> None:
        """Update all that depends on what is trainable now."""
        set_delta_flags(self.layers, self.segments)
        self.slabs = _slabs(self)
        self.inference = self.evaluation = _inference(self.layers)
        if rows_of(self.layers, ACTIVITY).size:
            self.evaluation = _inference(self.layers, kept=ACTIVITY)
        for table in (self.layers, self.inference, self.evaluation):
            _find_quantizers(table)

    def kept_inference(self) -> npt.NDArray[Any]:
        """Return rows like ``inference``, as many as ``layers``, which keep what backward wants."""
        layers = self.layers.copy()
        layers["kind"] = [_in_inference(row).code for row in layers]
        return layers

    def tensor(self, parameter: Parameter, vector: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return a view of one tensor, unpadded, in ``vector``: the parameters, or gradients, a mask, a slot."""
        flat = self.params if vector is None else vector
        flat = flat[parameter.offset : parameter.offset + parameter.length]
        if len(parameter.shape) == 1:
            return flat[: parameter.shape[0]]
        return flat.reshape(parameter.shape[0], -1)[:, : parameter.shape[1]]

    def tensors(self, vector: npt.NDArray[Any] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return views of all tensors by name."""
        return {p.name: self.tensor(p, vector) for p in self.parameters}

    def rows(self) -> Iterator[Row]:
        """Yield the rows of inference, read."""
        at = {p.offset: self.tensor(p) for p in self.parameters}
        for i, row in enumerate(self.inference):
            kind = kind_of(row)
            yield Row(
                index=i,
                name=self.names[int(row["number"])],
                kind=kind,
                n_in=int(row["n_in"]),
                n_out=int(row["n_out"]),
                positions=int(row["positions"]),
                input=int(row["input"]),
                second=int(row["second"]),
                output=int(row["output"]),
                tensors={name: at[offset] for name, offset in kind.offsets(row).items()},
                settings={name: kind.setting(row, name) for name in kind.settings},
                activation=self.activation_of(row),
            )

    @property
    def first_label(self) -> str:
        """The layer that reads the input, as its user knows it, for messages about rows of data."""
        row = self.inference[0]
        return layer_label(kind_of(row), self.names[int(row["number"])])

    def activation_of(self, row: Any) -> Activation:
        """Return the activation of a table row."""
        code = int(row["activation"])
        if code < ON_DEMAND:
            return activation_by_code(code, float(row["alpha"]))
        return self.on_demand[code - ON_DEMAND]

    def held_mask(self) -> npt.NDArray[Any]:
        """Return the mask that runs read, of no elements where there is none; raise for one of another shape."""
        if self.mask is None:
            return np.zeros(0, self.dtype)
        if self.mask.shape != self.params.shape or self.mask.dtype != self.dtype:
            raise ValueError(
                f"network.mask must have an element for each of the parameters, of shape {self.params.shape} and "
                f"{self.dtype}, got shape {self.mask.shape} and {self.mask.dtype}; prune makes one"
            )
        return self.mask

    def hold_masked(self, prefix: str = "") -> int:
        """Zero what the mask holds in tensors whose names begin with ``prefix``; return how many numbers were not."""
        count, mask = 0, self.held_mask()
        for parameter in self.parameters:
            if mask.size and parameter.name.startswith(prefix):
                view = self.tensor(parameter)
                wrong = (self.tensor(parameter, mask) == 0) & (view != 0)
                view[wrong] = 0
                count += int(wrong.sum())
        return count

    def project(self) -> None:
        """Bring the tensors that learn to where their projections want them; pruned weights stay zero."""
        if not self.projections:
            return
        for parameter, segment in zip(self.parameters, self.segments, strict=True):
            if segment["trainable"] and parameter.name in self.projections:
                view = self.tensor(parameter)
                view[...] = self.projections[parameter.name](view.copy())
        self.hold_masked()

    def take_tensors(
        self, other: Network, out: npt.NDArray[Any] | None = None, vector: npt.NDArray[Any] | None = None
    ) -> None:
        """Copy the tensors that another network has under the same names and in the same shapes.

        Parameters
        ----------
        other : Network
            Whose tensors they are.
        out, vector : ndarray, flat
            Where they are written to, laid out as this network's ``params``, and read from, as the other's; these
            themselves by default.
        """
        known = other.tensors(vector)
        for name, view in self.tensors(out).items():
            if name in known and known[name].shape == view.shape:
                view[...] = known[name]

    def take_mask(self, other: Network) -> None:
        """Take over another network's mask, if it has one, for the tensors that `take_tensors` copies."""
        if other.mask is not None:
            self.mask = np.ones_like(self.params)
            self.take_tensors(other, self.mask, other.mask)

    def share(self, other: Network, first: int = 0) -> None:
        """Make another network's parameters this one's: the same memory, from its element ``first`` on.

        Parameters
        ----------
        other : Network
            A network in which this one's tensors lie side by side in the same order.
        first : int
            Where the first of them begins.
        """
        self.params = other.params[first:]
        self.mask = None if other.mask is None else other.mask[first:]
        # What rows without a bias add their product to: the zeros at the end of the memory.
        zeros = self.params.size - int(self.layers["ld_out"].max())
        self.layers["start"] = np.where(self.layers["bias"] < 0, zeros, self.layers["bias"])
        self.refresh()

    def copy(self) -> Network:
        """Return a network of the same tables with parameters of its own."""
        params = aligned_zeros(self.params.size, self.dtype)
        params[:] = self.params
        return dataclasses.replace(
            self,
            layers=self.layers.copy(),
            segments=self.segments.copy(),
            parameters=list(self.parameters),
            params=params,
            names=list(self.names),
            mask=None if self.mask is None else self.mask.copy(),
        )


def in_dtype(network: Network, dtype: npt.DTypeLike) -> Network:
    """Return a copy of a network that computes in another dtype, whose tables point at the loops of that.

    Parameters
    ----------
    network : Network
        Not changed.
    dtype : dtype
        float32 or float64.
    """
    params = aligned_zeros(network.params.size, dtype)
    params[:] = network.params
    twin = network.copy()
    for row in twin.layers:
        if row["activation"] >= ON_DEMAND:
            row["call_forward"], row["call_backward"] = twin.activation_of(row).calls(dtype)
    mask = None if twin.mask is None else twin.mask.astype(dtype)
    return dataclasses.replace(twin, dtype=np.dtype(dtype), params=params, mask=mask)


def set_delta_flags(layers: npt.NDArray[Any], segments: npt.NDArray[Any], input_learns: bool = False) -> None:
    """Tell each row what backward is to do with its deltas.

    Parameters
    ----------
    layers : structured array of `LAYER`
        Its flags are set.
    segments : structured array of `SEGMENT`
        What is trainable.
    input_learns : bool
        Whether the deltas of the network's input are wanted too.
    """
    trainable = set(segments["offset"][segments["trainable"] != 0].tolist())
    learns = {0: input_learns}
    readers: dict[int, list[tuple[int, int]]] = {}  # of each buffer, in the order in which backward comes to them
    layers["flags"] = 0
    for i, row in enumerate(layers):
        learnt = any(learns[source] for source in sources(row))
        learns[int(row["output"])] = learnt or not trainable.isdisjoint(kind_of(row).offsets(row).values())
        for which, source in reversed(list(enumerate(sources(row)))):
            readers.setdefault(source, []).insert(0, (i, which))
            if not learns[source]:
                row["flags"] |= (NO_DELTA, NO_DELTA_2)[which]
        if not learns[int(row["output"])]:
            row["flags"] |= IDLE
    for row in layers:
        source = int(row["output"])
        known = readers.get(source, [])
        for i, which in known[1:]:
            layers[i]["flags"] |= (ADD_DELTA, ADD_DELTA_2)[which]
        # All contributions pass the gate if the last of them passes it.
        if known and row["activation"] == RELU and learns[source]:
            last, which = known[-1]
            if kind_of(layers[last]) is DENSE:
                layers[last]["flags"] |= GATE_DELTA
                row["flags"] |= DELTA_GATED
    for i, which in readers[0][1:]:
        layers[i]["flags"] |= (ADD_DELTA, ADD_DELTA_2)[which]


def _in_inference(row: Any) -> RowKind:
    """Return the kind that a row is of where nothing is trained."""
    return kind_of(row).inference or kind_of(row)


def _inference(layers: npt.NDArray[Any], kept: RowKind | None = None) -> npt.NDArray[Any]:
    """Return the rows that predict runs, and those of a kind besides: see `Network.inference`."""
    rows: list[Any] = []
    stands_for: dict[int, int] = {}
    for i, row in enumerate(layers.copy()):
        for name in ("input", "second"):
            row[name] = stands_for.get(int(row[name]), row[name])
        kind = kind_of(row)
        if kind is not kept:
            # A copy: only the output must be a row's, that of the layer before where it is a penalty that goes.
            if kind.inference is ACTIVATION and (i < len(layers) - 1 or (rows and kind is ACTIVITY)):
                stands_for[int(row["output"])] = int(row["input"])
                continue
            row["kind"] = _in_inference(row).code
            row["pre"] = row["output"]
        rows.append(row)
    return np.array(rows, LAYER)


def _find_quantizers(layers: npt.NDArray[Any]) -> None:
    """Tell each row which FAKE_QUANT its input comes from: a bias is rounded to that one's scale times its kernel's."""
    made_by: dict[int, int] = {}
    for i, row in enumerate(layers):
        row["quantizer"] = made_by.get(int(row["input"]), -1)
        if kind_of(row) is FAKE_QUANT:
            made_by[int(row["output"])] = i
        elif kind_of(row).keeps_format and row["activation"] == 0:
            made_by[int(row["output"])] = int(row["quantizer"])


def _slabs(network: Network) -> npt.NDArray[Any]:
    """Cut every kernel into blocks of rows: the pieces that threads share in the update."""
    segment_at = {int(s["offset"]): i for i, s in enumerate(network.segments)}
    wanted = network.params.size // SLABS if network.params.size >= SHARED_SIZE else network.params.size
    slabs: list[tuple[int, int, int, int, int, int]] = []

    def add(layer: int, segment: str, first: int, last: int, size: int) -> None:
        begins = slabs[-1][-1] if slabs else 0
        slabs.append((layer, segment_at[int(network.layers[layer][segment])], first, last, begins, begins + size))

    for i, row in enumerate(network.layers):
        kind, n_in, ld_out = kind_of(row), int(row["n_in"]), int(row["ld_out"])
        if kind is DENSE:
            step = min(SLAB_ROWS, max(PAD, padded(wanted // ld_out)))
            for first in range(0, n_in, step):
                last = min(first + step, n_in)
                add(i, "kernel", first, last, (last - first) * ld_out)
        elif row["kernel"] >= 0:
            add(i, "kernel", kind.vector, 0, PAD if kind.vector == FACTORS else ld_out)
        if row["bias"] >= 0:
            add(i, "bias", BIAS, 0, ld_out)
        if kind.move is not None:
            add(i, "mean", MOVING, 0, ld_out)
    return np.array(slabs, SLAB)
