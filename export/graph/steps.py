"""Steps: what lies between an ONNX graph and layers, one for each kind of layer, and an affine one.

An affine step is (x - mean) scale + shift, column by column, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import ACTIVATIONS, Activation, Alpha
from nbdense.layers.forms import RowForm, Settings, Tensors

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]


@dataclass(eq=False)
class DenseStep:
    """A product, with what is added to it and its activation."""

    kernel: Array
    bias: Array | None = None
    activation: Activation | None = None
    name: str = ""


@dataclass(eq=False)
class AffineStep:
    """(x - mean) scale + shift; each broadcasts against one row of data."""

    by_column_only: ClassVar[str] = "its constant must be the same at all positions of a row; only columns may differ"

    mean: Doubles
    scale: Doubles
    shift: Doubles
    place: str = ""

    @property
    def parts(self) -> tuple[Doubles, Doubles, Doubles]:
        """Mean, scale and shift of the step."""
        return self.mean, self.scale, self.shift

    @property
    def by_column(self) -> bool:
        """True where the step is the same at all positions of a row."""
        return all(math.prod(part.shape[:-1]) == 1 for part in self.parts)

    def over(self, n: int) -> tuple[Doubles, Doubles, Doubles]:
        """Return mean, scale and shift as vectors of ``n`` columns."""
        mean, scale, shift = (np.broadcast_to(part.reshape(part.shape[-1:]), (n,)) for part in self.parts)
        return mean, scale, shift


@dataclass(eq=False)
class FunctionStep:
    """The step of an activation."""

    activation: Activation


@dataclass(eq=False)
class LayerStep:
    """A layer of a form that reads and writes its own operators, with its tensors and its numbers."""

    form: RowForm
    width: int
    tensors: Tensors
    settings: Settings
    name: str = ""


@dataclass(eq=False)
class ShapeStep:
    """A change of shape: rows of another shape, their elements in the same order."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    place: str = ""

    @property
    def keeps_columns(self) -> bool:
        """True where only positions are arranged anew."""
        return (self.before or (1,))[-1] == (self.after or (1,))[-1]


@dataclass(eq=False)
class DropoutStep:
    """The step of a dropout."""

    rate: float


@dataclass(eq=False)
class ColumnsStep:
    """1 - p and p of a column p; ``rest`` is the place of the first."""

    rest: int


@dataclass(eq=False)
class SumStep:
    """The sum of the data, through a kernel where there is one, and the steps' result for it."""

    steps: list[Step] = field(default_factory=list)
    projection: Array | None = None
    place: str = ""


Step = DenseStep | AffineStep | FunctionStep | LayerStep | ShapeStep | DropoutStep | ColumnsStep | SumStep


def affine(mean: float | Array = 0.0, scale: float | Array = 1.0, shift: float | Array = 0.0) -> AffineStep:
    """Return an affine step of numbers or arrays.

    Parameters
    ----------
    mean, scale, shift : float or ndarray
        Parts of (x - mean) scale + shift.
    """
    return AffineStep(np.asarray(mean, np.float64), np.asarray(scale, np.float64), np.asarray(shift, np.float64))


def function(name: str, alpha: Alpha | None = None) -> FunctionStep:
    """Return an activation's step.

    Parameters
    ----------
    name : str
        Name in ``nbdense.activations.ACTIVATIONS``.
    alpha : float or tuple of float, optional
        Its parameter, or all of them.
    """
    row = ACTIVATIONS[name]
    return FunctionStep(row if alpha is None else row.with_alpha(alpha))


def clip(least: float, most: float) -> list[Step]:
    """Return the step of a clamp, or none where it has no bounds.

    Parameters
    ----------
    least, most : float
        The bounds; infinite: none.

    Raises
    ------
    ValueError
        If the bounds leave but one number, or none.
    """
    if math.isnan(least) or math.isnan(most) or least >= most:
        raise ValueError(f"its lower bound must be below its upper one, got {least} and {most}")
    if least == -math.inf and most == math.inf:
        return []
    ends = tuple(end if math.isinf(end) else float(str(np.float32(end))) for end in (least, most))
    if ends[0] == 0:
        return [function("relu") if most == math.inf else function("relu6", ends[1])]
    return [function("hard_tanh", ends)]
