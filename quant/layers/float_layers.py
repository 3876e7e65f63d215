"""The layers of a quantized network that were left in float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nbdense.activations import Activation, Alpha
from nbdense.engine import tables as engine
from nbdense.quant.layers.base import Format, InFloat
from nbdense.quant.layers.checks import check_columns, one_of
from nbdense.quant.layers.layout import Layout

# What float layers are called, and the engine's kinds of row.
ENGINE_KINDS = {
    "dense": engine.DENSE,
    "activation": engine.ACTIVATION,
    "batch_norm": engine.FROZEN_NORM,
    "layer_norm": engine.LAYER_NORM,
    "add": engine.ADD,
    "flatten": engine.RESHAPE,
}

# Where the engine's rows have the tensors of norms.
_ENGINE_PLACES = {"gamma": "kernel", "beta": "bias"}

# Kinds of float layers, the tensors that each has (a "?" marks those that may be missing), and its inputs.
FLOAT_KINDS: dict[str, tuple[tuple[str, ...], int]] = {
    "dense": (("kernel", "bias?"), 1),
    "activation": ((), 1),
    "batch_norm": (("gamma?", "beta?", "mean", "variance"), 1),
    "layer_norm": (("gamma?", "beta?"), 1),
    "add": ((), 2),
    "flatten": ((), 1),
}


@dataclass(frozen=True, eq=False)
class FloatLayer(InFloat):
    """A layer that was left in float.

    Attributes
    ----------
    name : str
        The layer's name.
    what : str
        "dense", "activation", "batch_norm" (by its running statistics), "layer_norm", "add" or "flatten".
    n : int
        Columns of the input.
    tensors : dict of str to ndarray of float32
        "kernel" (n, n_out) and "bias"; "gamma", "beta", "mean" and "variance" of norms.
    activation : str
        Name in ``nbdense.activations.ACTIVATIONS``, or a custom one's.
    alpha : float or tuple of float
        The activation's parameter, if it has one, or all of several; a norm's epsilon.
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
        """None for each input: they are float."""
        return (None,) * FLOAT_KINDS[self.what][1]

    def check(self, dtype: str, where: str) -> None:
        """Refuse parts of the layer that do not fit together."""
        one_of(f"{where}what", self.what, FLOAT_KINDS)
        names, inputs = FLOAT_KINDS[self.what]
        if inputs == 2 and (self.inputs is None or len(self.inputs) != 2):
            raise ValueError(f"{where}a sum needs two inputs")
        wanted = {name.rstrip("?") for name in names}
        missing = {name for name in names if not name.endswith("?")} - set(self.tensors)
        if missing or not set(self.tensors) <= wanted:
            raise ValueError(f"{where}a {self.what} has the tensors {sorted(wanted)}, got {sorted(self.tensors)}")
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
            Of the program.
        index : int
            The layer's place in the network.
        """
        fields = {"alpha": self.alpha} if self.what in ("batch_norm", "layer_norm") else {}
        tensors = {_ENGINE_PLACES.get(name, name): value for name, value in self.tensors.items()}
        layout.float_row(ENGINE_KINDS[self.what], index, self.function, tensors, **fields)
