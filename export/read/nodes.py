"""The nodes of a graph that is read: one class for each kind, with its settings as fields.

Operators that activations and their decompositions are made of are a `FunctionNode`, by ONNX's name; all others have a
class of their own. `nbdense.export.read.values` has the tensors that nodes make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbdense.export.read.tensors import Array
from nbdense.export.read.weights import Integers
from nbdense.layers.forms import RowForm, Settings


@dataclass(frozen=True)
class Format:
    """Scale, zero point and type of integers."""

    scale: float
    zero: int
    dtype: str

    @property
    def pair(self) -> tuple[float, int]:
        """Scale and zero point."""
        return self.scale, self.zero


@dataclass(frozen=True)
class InputNode:
    """The graph's input."""


@dataclass(frozen=True)
class FunctionNode:
    """An operator of real numbers, by ONNX's name."""

    operator: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DenseNode:
    """A product with a kernel, and a bias where there is one: the value's second and third input.

    Attributes
    ----------
    kernel, bias : Integers, optional
        The integers that these are, where they are.
    is_dynamic : bool
        Whether the layer's input is quantized anew in every call.
    """

    kernel: Integers | None = None
    bias: Integers | None = None
    is_dynamic: bool = False


@dataclass(frozen=True, eq=False)
class LayerNode:
    """A layer of a form that reads its own operators; the value's other inputs are its ``tensors``."""

    form: RowForm
    tensors: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True)
class DropoutNode:
    """Zeros in place of some elements, in training alone."""

    rate: float


@dataclass(frozen=True)
class ReshapeNode:
    """Rows of another shape."""


@dataclass(frozen=True)
class ColumnsNode:
    """1 - p and p of a column p; ``rest`` is the place of the first."""

    rest: int


@dataclass(frozen=True)
class QuantizeNode:
    """Integers of real numbers."""

    format: Format

    @property
    def dtype(self) -> str:
        """Type of the integers."""
        return self.format.dtype


@dataclass(frozen=True)
class DequantizeNode:
    """The real numbers that integers stand for."""


@dataclass(frozen=True, eq=False)
class LookupNode:
    """A table's entries for integers; ``format`` is None until a node says what the entries stand for."""

    table: Array
    dtype: str
    format: Format | None = None


@dataclass(frozen=True, eq=False)
class SoftmaxPartNode:
    """A part of an integer softmax: a term of the integers that it is of (see `nbdense.export.read.softmax`)."""

    term: Any
    depth: int
    table: Array | None = None


@dataclass(frozen=True)
class DynamicIntegersNode:
    """Integers of real numbers, by a scale that is found anew in every call."""


@dataclass(frozen=True)
class DynamicZeroNode:
    """The zero point of dynamic integers."""


@dataclass(frozen=True, eq=False)
class DynamicScaleNode:
    """The scale of dynamic integers, times a constant."""

    factor: Any = np.float32(1)


@dataclass(frozen=True, eq=False)
class AccumulatorNode:
    """The product of dynamic integers with a kernel's, times a constant, and times their scale or not yet."""

    kernel: Integers
    factor: Any = np.float32(1)
    is_scaled: bool = False


Node = (
    InputNode
    | FunctionNode
    | DenseNode
    | LayerNode
    | DropoutNode
    | ReshapeNode
    | ColumnsNode
    | QuantizeNode
    | DequantizeNode
    | LookupNode
    | SoftmaxPartNode
    | DynamicIntegersNode
    | DynamicZeroNode
    | DynamicScaleNode
    | AccumulatorNode
)
