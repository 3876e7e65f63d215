"""Rows of data for a Pipeline, as scikit-learn takes them and as the inputs of its ONNX graph.

skl2onnx gets names that it leaves as they are, and numbers in place of the columns' names: the names are the user's,
of whom ONNX asks little and skl2onnx much.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from nbdense.export.graph import INPUT
from nbdense.export.verification import RANDOM_ROWS

WHOLE_IN_FLOAT32 = 2**24  # up to here float32 has every whole number
DTYPES: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.INT64: np.int64, TensorProto.STRING: object}


@dataclass(frozen=True)
class GraphInput:
    """An input of the graph: neighbouring columns of the data, as one tensor.

    Attributes
    ----------
    name : str
        The user's.
    alias : str
        A name that skl2onnx leaves as it is.
    first : int or None
        The first column; None: the data does not have it, and the pipeline does not read it.
    width : int
        How many columns.
    elem_type : int
        Of its elements, a TensorProto.DataType.
    """

    name: str
    alias: str
    first: int | None
    width: int
    elem_type: int


@dataclass(frozen=True)
class Rows:
    """Rows of data, and the inputs that take them.

    Attributes
    ----------
    data : ndarray or DataFrame
        As predict takes it.
    inputs : tuple of GraphInput
        One of all columns, or one for each that the pipeline was fitted on, in its order.
    """

    data: Any
    inputs: tuple[GraphInput, ...]

    def take(self, index: npt.NDArray[np.intp], dtype: npt.DTypeLike = np.float32) -> Any:
        """Return some rows for predict, float numbers in a precision.

        Parameters
        ----------
        index : ndarray of int
            Which.
        dtype : dtype
            The precision.
        """
        part = self.data.iloc[index] if hasattr(self.data, "iloc") else self.data[index]
        if self.inputs[0].alias == INPUT:
            return part.astype(dtype) if self.inputs[0].elem_type == TensorProto.FLOAT else part
        return part.astype({column: dtype for column in part.columns if part[column].dtype.kind == "f"})

    def feed(self, index: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        """Return some rows for onnxruntime, by the inputs' names.

        Parameters
        ----------
        index : ndarray of int
            Which.
        """
        part = self.data.iloc[index] if hasattr(self.data, "iloc") else self.data[index]
        tensors = {}
        for entry in self.inputs:
            if entry.first is not None:
                columns = slice(entry.first, entry.first + entry.width)
                block = part.iloc[:, columns].to_numpy() if hasattr(part, "iloc") else part[:, columns]
                tensors[entry.name] = np.ascontiguousarray(block, DTYPES[entry.elem_type])
        return tensors


def rows_of(pipeline: Any, X: Any) -> Rows:
    """Return the rows to convert for and to compare on.

    Parameters
    ----------
    pipeline : Pipeline or estimator
        Fitted, and simple (see `simplified`).
    X : array-like or DataFrame, (rows, columns), or None
        The user's; None for random ones.

    Raises
    ------
    ValueError
        If they do not fit, or are needed, or a column holds what ONNX has no type for or has a name that ONNX has not.
    """
    if X is None:
        width = getattr(pipeline, "n_features_in_", None)
        if width is None or _selects_columns(pipeline):
            raise ValueError("pipeline_to_onnx: give X, some rows of data: the inputs' types are not known without")
        random = np.random.default_rng(0).standard_normal((RANDOM_ROWS, width), np.float32)
        return Rows(random, (GraphInput(INPUT, INPUT, 0, width, TensorProto.FLOAT),))
    if not hasattr(X, "iloc"):
        X = np.asarray(X)
    if X.ndim != 2 or len(X) == 0:
        raise ValueError(f"X: expected rows and columns, at least one row, got shape {X.shape}")
    if isinstance(X, np.ndarray):
        width = getattr(pipeline, "n_features_in_", X.shape[1])
        if X.shape[1] != width:
            raise ValueError(f"X has {X.shape[1]} columns, but the pipeline was fitted on {width}")
        return Rows(X, (GraphInput(INPUT, INPUT, 0, width, _element_type("X", X)),))
    types = [_element_type(f"X: column {name!r}", X.iloc[:, place].to_numpy()) for place, name in enumerate(X.columns)]
    if set(types) == {TensorProto.FLOAT} and not _selects_columns(pipeline):
        return Rows(X, (GraphInput(INPUT, INPUT, 0, X.shape[1], TensorProto.FLOAT),))
    fitted = list(getattr(pipeline, "feature_names_in_", X.columns))  # scikit-learn finds them by name, in any order
    _check_names(fitted)
    places = {column: place for place, column in enumerate(X.columns)}
    inputs = []
    for number, column in enumerate(fitted):
        place = places.get(column)
        elem_type = TensorProto.FLOAT if place is None else types[place]
        inputs.append(GraphInput(str(column), f"column_{number}", place, 1, elem_type))
    return Rows(X, tuple(inputs))


def _check_names(columns: Iterable[Any]) -> None:
    """Raise a ValueError for what ONNX cannot have as the names of its inputs."""
    places: dict[str, int] = {}
    for place, column in enumerate(columns):
        name = str(column)
        if not name:
            raise ValueError(f"X: column {place} has an empty name, which ONNX does not have; give it another")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"X: column {place}'s name {name!r} is no valid Unicode, as ONNX needs it") from None
        if name in places:
            raise ValueError(
                f"X: its columns' names must differ, as strings too, to be an ONNX graph's inputs; columns "
                f"{places[name]} and {place} are both {name!r}"
            )
        places[name] = place


def _selects_columns(model: Any) -> bool:
    """Whether a step looks at columns one by one."""
    from sklearn.compose import ColumnTransformer

    steps = [*getattr(model, "steps", []), *getattr(model, "transformer_list", [])]
    return isinstance(model, ColumnTransformer) or any(_selects_columns(step) for _, step in steps)


def _element_type(name: str, values: npt.NDArray[Any]) -> int:
    """ONNX's type for an array's elements."""
    if values.dtype.kind in "iu" and values.size and np.abs(values.astype(np.float64)).max() > WHOLE_IN_FLOAT32:
        return int(TensorProto.INT64)
    if values.dtype.kind in "fiub":
        return int(TensorProto.FLOAT)
    if values.dtype.kind in "OUT" and all(isinstance(value, str) for value in values.ravel()):
        return int(TensorProto.STRING)
    raise ValueError(
        f"{name} holds neither numbers nor strings alone (dtype {values.dtype}); give columns of several types as a "
        "DataFrame, and fill in missing strings"
    )


def simplified(model: Any) -> Any:
    """Return the model in the form that skl2onnx reads without fail; no estimator is changed.

    There are no steps that do nothing, and what a ColumnTransformer selects by names, masks or slices it selects by the
    columns' numbers.

    Parameters
    ----------
    model : Pipeline or estimator
        Fitted.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

    twin = copy.copy(model)
    if isinstance(model, Pipeline):
        twin.steps = [(name, simplified(step)) for name, step in model.steps if step not in (None, "passthrough")]
    elif isinstance(model, FeatureUnion):
        twin.transformer_list = [(name, simplified(part)) for name, part in model.transformer_list]
    elif isinstance(model, ColumnTransformer):
        selected = model._transformer_to_input_indices
        twin.transformers_ = [
            (name, simplified(part), [int(number) for number in selected[name]])
            for name, part, _ in model.transformers_
        ]
    else:
        return model
    return twin
