"""The layers of a quantized network that were left in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation, Alpha
from nbdense.layers import FORMS, RowForm
from nbdense.quant.layers import sparse_rows
from nbdense.quant.layers.base import Format, InFloat
from nbdense.quant.layers.checks import check_columns, one_of
from nbdense.quant.layers.layout import Layout


@dataclass(frozen=True, eq=False)
class FloatLayer(InFloat):
    """A layer that was left in float.

    Attributes
    ----------
    name : str
        The layer's name.
    what : str
        The name of its form, of `nbdense.layers.FORMS`: "dense" or "add", for instance.
    n : int
        Columns of the input.
    tensors : dict of str to ndarray of float32
        Those of its form: "kernel" (n, n_out) and "bias" of a dense layer, vectors of columns of others.
    activation : str
        Name in ``nbdense.activations.ACTIVATIONS``, or a custom one's.
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several; else the number that its form names as its
        setting.
    inputs : tuple of int, or None
        The tensors that it reads; None: the one before.
    positions : int
        Rows of columns in a row of data, of the input.
    custom : Activation, optional
        The activation, where it is a custom one.
    """

    kind: ClassVar[str] = "float"
    arrays: ClassVar[tuple[str, ...]] = ()

    name: str
    what: str
    n: int
    tensors: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    activation: str = "linear"
    alpha: Alpha = 0.0
    inputs: tuple[int, ...] | None = None
    positions: int = 1
    custom: Activation | None = field(default=None, repr=False)

    @property
    def form(self) -> RowForm:
        """Form of such layers."""
        return FORMS[self.what]

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers of the layer by the names that its kind of row has for them."""
        return {self.form.setting: self.alpha} if self.form.setting else {}

    @property
    def n_in(self) -> int:
        """Columns of the input."""
        return self.n

    @property
    def n_out(self) -> int:
        """Columns of the output."""
        if self.what == "dense":
            return int(self.tensors["kernel"].shape[1])
        return self.n * self.positions if self.what == "flatten" else self.n

    @property
    def positions_out(self) -> int:
        """Rows of columns that the layer gives: 1 behind a change of shape, else as many as come in."""
        return 1 if self.what == "flatten" else self.positions

    @property
    def title(self) -> str:
        """Kind of the layer, for a report."""
        return f"float {self.what}"

    @property
    def weight_bits(self) -> int | None:
        """Bits of each weight of a dense layer."""
        return 32 if self.what == "dense" else None

    @property
    def multiply_adds(self) -> int:
        """Multiplications with weights for one row of data."""
        return self.positions * self.n_in * self.n_out if self.what == "dense" else 0

    @property
    def input_formats(self) -> tuple[Format, ...]:
        """Its inputs are float."""
        return (None,) * self.form.inputs

    def check(self, dtype: str, where: str) -> None:
        """Refuse what does not fit together."""
        one_of(f"{where}what", self.what, FORMS)
        if self.form.inputs == 2 and (self.inputs is None or len(self.inputs) != 2):
            raise ValueError(f"{where}a sum needs two inputs")
        if self.form.setting and isinstance(self.alpha, tuple):
            raise ValueError(
                f"{where}alpha of a {self.what} must be one number, its {self.form.setting}, got {self.alpha!r}"
            )
        allowed = self.form.allowed
        if not self.form.required <= set(self.tensors) <= allowed:
            raise ValueError(f"{where}a {self.what} has the tensors {sorted(allowed)}, got {sorted(self.tensors)}")
        columns = self.tensors["kernel"].shape[-1:] if "kernel" in self.tensors else (self.n,)
        for name, value in self.tensors.items():
            shape = (self.n, *columns) if name == "kernel" else columns
            check_columns(value, shape, np.float32, f"{where}{name}")
        if self.what not in ("dense", "activation") and self.activation != "linear":
            raise ValueError(f"{where}a {self.what} has no activation, got {self.activation!r}")
        _ = self.function

    def lay_out(self, layout: Layout, index: int) -> None:
        """Write the layer's row of the engine's table and its tensors.

        Parameters
        ----------
        layout : Layout
            Layout of the program.
        index : int
            The layer's place in the network.
        """
        if index in layout.sparse.blocks:
            sparse_rows.lay_out(layout, index, self.function, self.tensors.get("bias"))
        else:
            layout.float_row(self.form.kind, index, self.function, self.tensors, **self.settings)
