"""Forms of rows: what quantizers and exporters ask about a kind of row, one object each.

A kind of row is registered twice: in `nbdense.engine.rows` with its compiled functions, and here, by the module that
has its layer, with all that storeys above know of it. These give what they write to, or read from, as the narrow
protocols below; so a kind knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import RowKind
from nbdense.network import Row

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]  # by the names that the kind of row has for them
Settings = Mapping[str, float]


class OnnxGraph(Protocol):
    """The graph that a row is written to.

    Attributes
    ----------
    opset : int
        The opset that its nodes are of.
    axis : int
        Which axis of a tensor the columns are: the last, -1, or in a convolution the channels'.
    """

    opset: int
    axis: int

    def node(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""

    def constant(self, name: str, value: Any, dtype: npt.DTypeLike) -> str:
        """Add a constant; return its name."""

    def along_columns(self, value: Array) -> Array:
        """Return a vector, a number a column, in the shape in which it broadcasts along ``axis``."""


class OnnxValue(Protocol):
    """A tensor of a graph that is read, which depends on the data, and the node that makes it."""

    shape: tuple[int, ...]  # of one row of data

    @property
    def operator(self) -> str:
        """ONNX's name of the node's operator; "" for nodes that are more than an operator."""

    @property
    def inputs(self) -> Sequence[Any]:
        """Values, constants, and None for what was left out."""

    @property
    def values(self) -> Sequence[OnnxValue]:
        """Inputs that depend on the data."""


class OnnxCall(Protocol):
    """A node of a graph that is read."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes by name."""

    @property
    def uses_more(self) -> bool:
        """True where more than its first output is read."""

    def data(self, index: int = 0) -> Any:
        """Return an input that must depend on the data: an `OnnxValue`, with ``seen``, its shape in the graph."""

    def constants(self, labels: Sequence[str], optional: int = 0) -> list[Array]:
        """Return the inputs behind the first, which must be constant; the last ``optional`` ones may be left out.

        The first of them says how many columns the data has, where the file does not.
        """

    def fail(self, why: str) -> Exception:
        """Return an error that names the node."""

    def layer(self, form: RowForm, tensors: Tensors, settings: Settings) -> Any:
        """Return the value of a layer of that form."""


class ForeignLayer(Protocol):
    """A layer of torch's or Keras's, of which its attributes are known."""

    def array(self, name: str) -> Array | None:
        """Return a weight; None where there is none."""

    def setting(self, name: str) -> Any:
        """Return an attribute; None where there is none."""

    def check_axis(self, axis: Any) -> None:
        """Refuse an axis, the batch's being 0, that is not the last."""

    def fail(self, why: str) -> Exception:
        """Return an error that names the layer."""


class CSource(Protocol):
    """A C source that a row is written to."""

    def array(self, kind: str, name: str, values: Array, aligned: bool = False) -> str:
        """Define a constant array of a C type; return its name."""

    def number(self, value: float) -> str:
        """Return a float32 number as C has it."""


@dataclass(frozen=True, eq=False)
class RowForm:
    """Form of a kind of row: all that is to be known of it outside the engine.

    Parameters
    ----------
    kind : RowKind
        The kind, as inference has it.
    name : str
        In files of quantized networks, for layers that were left in float.
    tensors : tuple of str
        The kind's tensors; a "?" marks those that may be missing.
    inputs : int
        Tensors that it reads.
    setting : str
        The number of the kind's that a layer left in float has as its ``alpha``; empty: that is the activation's.
    write_onnx : callable, optional
        ``(graph, row, prefix, inputs, target)`` writes the nodes of a row, without its activation, as tensors whose
        names begin with ``prefix``.
    write_c : callable, optional
        ``(source, row, label)``: the C function that takes a row of columns through the layer, and its first arguments,
        constants whose names end in the label.
    operators : mapping of str to callable
        Of an `OnnxCall`: what reads the ONNX operators that are such a layer.
    composed : callable, optional
        ``(value)``: the settings and the input of what core operators make, in the form in which ``write_onnx`` and
        common exporters write it, without gamma and beta; None where it is something else.
    fitted : callable, optional
        ``(rows, values, epsilon)``: the tensors with which the layer makes these values of random rows, float64
        (rows, columns); None where there are none. For graphs in any other form.
    means : int
        Means over the columns that are taken in such a graph, at least.
    modules : mapping of str to callable
        Of a `ForeignLayer`: what reads tensors and settings of the layers of other libraries that are such a layer, by
        their classes, "torch.NAME" and "keras.NAME".
    affine : callable, optional
        ``(tensors, settings)``: mean, scale and shift where the layer is no more than (x - mean) scale + shift and
        such settings are none of a layer's.
    absorb : callable, optional
        ``(tensors, mean, scale, shift)``: the tensors with (x - mean) scale + shift, float64, done behind the layer;
        None where the layer has no such form.
    layer : callable, optional
        ``(tensors, settings, name)``: the layer, and its tensors by the names that follow the layer's own.
    """

    kind: RowKind
    name: str
    tensors: tuple[str, ...] = ()
    inputs: int = 1
    setting: str = ""
    write_onnx: Callable[[OnnxGraph, Row, str, Sequence[str], str], None] | None = None
    write_c: Callable[[CSource, Row, str], tuple[str, Sequence[str]]] | None = None
    operators: Mapping[str, Callable[[OnnxCall], Any]] = field(default_factory=dict)
    composed: Callable[[OnnxValue], tuple[Settings, Any] | None] | None = None
    fitted: Callable[[Array, Array, float], Tensors | None] | None = None
    means: int = 0
    modules: Mapping[str, Callable[[ForeignLayer], tuple[Tensors, Settings]]] = field(default_factory=dict)
    affine: Callable[[Tensors, Settings], tuple[Array, Array, Array] | None] | None = None
    absorb: Callable[[Tensors, Array, Array, Array], Tensors | None] | None = None
    layer: Callable[[Tensors, Settings, str | None], tuple[Any, dict[str, Array]]] | None = None

    @property
    def required(self) -> set[str]:
        """Tensors that must be there."""
        return {name for name in self.tensors if not name.endswith("?")}

    @property
    def allowed(self) -> set[str]:
        """Tensors that there can be."""
        return {name.rstrip("?") for name in self.tensors}


FORMS: dict[str, RowForm] = {}  # by name


def register_form(form: RowForm) -> RowForm:
    """Enter a form under its name; returns it."""
    if form.name in FORMS:
        raise ValueError(f"there is a form of rows named {form.name!r} already")
    FORMS[form.name] = form
    return form


def form_of(kind: RowKind) -> RowForm | None:
    """Return the form of a kind of row; None where neither quantized networks nor files have it."""
    return next((form for form in FORMS.values() if form.kind is kind), None)


def tensors_of(layer: ForeignLayer, **names: str) -> dict[str, Array]:
    """Return those tensors that another library's layer has, under a form's names.

    Parameters
    ----------
    layer : ForeignLayer
        The layer.
    **names : str
        By the form's names, the layer's.
    """
    found = {name: layer.array(attribute) for name, attribute in names.items()}
    return {name: array for name, array in found.items() if array is not None}


def number_of(part: Any) -> float | None:
    """Return the number that a constant is; None where it is no single number, or no constant."""
    return float(part.reshape(-1)[0]) if isinstance(part, np.ndarray) and part.size == 1 else None
