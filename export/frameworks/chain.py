"""Layers of another library's model, one after the other, as the steps that a Sequential is built of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.export.graph.steps import DenseStep, LayerStep, ShapeStep, Step, SumStep, affine
from nbdense.export.read.layers import build_model
from nbdense.export.read.tidying import tidy
from nbdense.layers.forms import FORMS, RowForm, Settings, Tensors
from nbdense.models import Sequential

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


def array_of(value: Any) -> Array:
    """Return a weight of another library's as an array of float32 or float64, a copy.

    Parameters
    ----------
    value : tensor, variable or array
        The weight.
    """
    if hasattr(value, "detach"):  # torch's: off its graph and its device; NumPy has no bfloat16
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) in ("torch.bfloat16", "torch.float16") else value
    array = np.array(value.numpy() if hasattr(value, "numpy") else value)
    return array if array.dtype == np.float64 else array.astype(np.float32)


class Chain:
    """Steps in the making, and the shape of a row of data behind them.

    Parameters
    ----------
    owner : str
        The function that users call, for errors.
    shape : tuple of int, optional
        Shape of one row of the input; None: the first layer that has a width says it.

    Attributes
    ----------
    steps : list of Step
        The steps.
    shape, input_shape : tuple of int or None
        Shape of a row behind them, and before.
    """

    def __init__(self, owner: str, shape: Shape | None = None) -> None:
        self.owner, self.steps = owner, list[Step]()
        self.shape = self.input_shape = None if shape is None else tuple(map(int, shape))

    def fail(self, place: str, why: str) -> ValueError:
        """Return an error that names a layer.

        Parameters
        ----------
        place, why : str
            The layer, and what is wrong with it.
        """
        return ValueError(f"{self.owner}: {place}: {why}")

    def columns(self, wanted: int, place: str) -> Shape:
        """Return the shape of a row, after a look at its last axis.

        Parameters
        ----------
        wanted : int
            Columns that a layer takes.
        place : str
            The layer.
        """
        if self.shape is None:
            self.shape = self.input_shape = (wanted,)
        if not self.shape or self.shape[-1] != wanted:
            raise self.fail(place, f"it takes {wanted} columns, and what comes in has rows of shape {self.shape}")
        return self.shape

    def check_axis(self, axis: Any, place: str) -> None:
        """Refuse an axis that is not the last.

        Parameters
        ----------
        axis : int or sequence of int
            An axis, the batch's being 0.
        place : str
            The layer.
        """
        (number,) = axis if isinstance(axis, list | tuple) and len(axis) == 1 else (axis,)
        rank = 1 if self.shape is None else len(self.shape)
        if number not in (-1, rank):
            raise self.fail(place, f"it works on axis {axis}, and layers here on the last, which is {rank}")

    def add(self, *steps: Step) -> None:
        """Append steps that leave the shape of rows as it is.

        Parameters
        ----------
        *steps : Step
            The steps.
        """
        self.steps += steps

    def dense(self, kernel: Array, bias: Array | None, name: str, place: str) -> None:
        """Append a dense layer.

        Parameters
        ----------
        kernel : ndarray, (n_in, n_out)
        bias : ndarray, (n_out,), or None
        name : str
            What its weights are called.
        place : str
            The layer, for errors.
        """
        shape = self.columns(kernel.shape[0], place)
        self.add(DenseStep(kernel, bias, name=name))
        self.shape = (*shape[:-1], kernel.shape[1])

    def affine(self, mean: Any, scale: Any, shift: Any, place: str) -> None:
        """Append (x - mean) scale + shift.

        Parameters
        ----------
        mean, scale, shift : float or array-like
            Numbers, or one a column.
        place : str
            The layer, for errors.
        """
        step = affine(*(np.squeeze(np.asarray(part)) for part in (mean, scale, shift)))
        for part in step.parts:
            if part.ndim:
                self.columns(part.size, place)
        self.add(dataclasses.replace(step, place=place))

    def flatten(self, place: str) -> None:
        """Append a change of rows of any shape into rows of one axis.

        Parameters
        ----------
        place : str
            The layer, for errors.
        """
        if self.shape is None:
            raise self.fail(place, "what shape its rows have is not known; give input_shape=(1, 28, 28), say")
        after = (math.prod(self.shape),)
        self.add(ShapeStep(self.shape, after, place))
        self.shape = after

    def row(self, form: RowForm, tensors: Tensors, settings: Settings, name: str, place: str) -> None:
        """Append a layer of a form.

        Parameters
        ----------
        form : RowForm
            Its form.
        tensors, settings : mapping
            Its tensors, all of one number a column, and its numbers.
        name : str
            What its weights are called.
        place : str
            The layer, for errors.
        """
        for tensor in tensors.values():
            self.columns(tensor.size, place)
        if self.shape is None:
            raise self.fail(place, "how many columns it has is not known; give input_shape=(n,)")
        self.add(LayerStep(form, self.shape[-1], tensors, settings, name))

    def sum(self, branch: Chain, projection: Array | None, place: str) -> None:
        """Append a residual block: what comes in, through a kernel where there is one, and a branch's result.

        Parameters
        ----------
        branch : Chain
            What is added to it.
        projection : ndarray, (n_in, n_out), or None
            The kernel.
        place : str
            The sum, for errors.
        """
        if any(isinstance(step, ShapeStep) for step in branch.steps):
            raise self.fail(place, "a branch that it adds must keep the axes of a row, and flattens them")
        self.add(SumStep(tidy(branch.steps), projection, place))
        self.shape = branch.shape

    def model(self, dtype: str) -> Sequential:
        """Return the model of the steps.

        Parameters
        ----------
        dtype : {"float32", "float64"}
            Type of its parameters.

        Raises
        ------
        ValueError
            If no layer says how many columns the input has.
        """
        if self.input_shape is None or self.shape is None:
            raise ValueError(f"{self.owner}: no layer says how many columns the input has; give input_shape=(n,)")
        return build_model(tidy(self.steps), self.input_shape, self.shape, dtype, self.owner)


class ForeignLayer:
    """A layer of another library's as the forms of rows read it: see `nbdense.layers.forms.ForeignLayer`.

    Parameters
    ----------
    layer : object
        The layer.
    chain : Chain
        What it is appended to.
    place : str
        The layer, for errors.
    """

    def __init__(self, layer: Any, chain: Chain, place: str) -> None:
        self._layer, self._chain, self._place = layer, chain, place

    def array(self, name: str) -> Array | None:
        """Return a weight; None where there is none.

        Parameters
        ----------
        name : str
            The layer's attribute.
        """
        value = getattr(self._layer, name, None)
        return None if value is None else array_of(value)

    def setting(self, name: str) -> Any:
        """Return an attribute; None where there is none.

        Parameters
        ----------
        name : str
            Its name.
        """
        return getattr(self._layer, name, None)

    def check_axis(self, axis: Any) -> None:
        """Refuse an axis that is not the last.

        Parameters
        ----------
        axis : int or sequence of int
            An axis, the batch's being 0.
        """
        self._chain.check_axis(axis, self._place)

    def fail(self, why: str) -> ValueError:
        """Return an error that names the layer.

        Parameters
        ----------
        why : str
            What is wrong with it.
        """
        return self._chain.fail(self._place, why)


Reader = Callable[[ForeignLayer], tuple[Tensors, Settings]]


def readers_of(library: str) -> Mapping[str, tuple[RowForm, Reader]]:
    """Return the forms that read layers of a library, by the names of their classes.

    Parameters
    ----------
    library : str
        "torch" or "keras".
    """
    return {
        name.partition(".")[2]: (form, read)
        for form in FORMS.values()
        for name, read in form.modules.items()
        if name.startswith(f"{library}.")
    }


def class_of(thing: Any, library: str, methods: tuple[str, ...]) -> str:
    """Return the name of the library's class that a thing is of; empty: of none, or of one with a method of its own.

    Parameters
    ----------
    thing : object
        A layer.
    library : str
        What the names of the library's modules begin with.
    methods : tuple of str
        Methods that say what a layer computes.
    """
    kind = type(thing)
    base = next((base for base in kind.__mro__ if f"{base.__module__}.".startswith(f"{library}.")), None)
    if base is None or any(getattr(kind, name, None) is not getattr(base, name, None) for name in methods):
        return ""
    return base.__name__
