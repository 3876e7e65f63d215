"""Rows of data for a Pipeline, as scikit-learn takes them and as the inputs of its ONNX graph.

skl2onnx gets names that it leaves as they are, and numbers in place of the columns' names: the names are the user's,
of whom ONNX asks little and skl2onnx much.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from nbdense._checks import array_of, is_missing
from nbdense.export.graph.builder import INPUT
from nbdense.export.verify.verification import RANDOM_ROWS

WHOLE_IN_FLOAT32 = 2**24  # up to here float32 has every whole number
WHOLE_IN_FLOAT64 = 2**53
COARSE = 1e-4  # steps of float32, as a share of a column's standard deviation, that are worth a word
DTYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT64: np.int64,
    TensorProto.STRING: object,
}


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
        Type of its elements, a TensorProto.DataType.
    """

    name: str
    alias: str
    first: int | None
    width: int
    elem_type: int

    def of(self, data: Any, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
        """Return the columns as a tensor.

        Parameters
        ----------
        data : ndarray or DataFrame
            Some rows.
        dtype : dtype, optional
            Type; by default the input's own.
        """
        assert self.first is not None
        columns = slice(self.first, self.first + self.width)
        block = data.iloc[:, columns].to_numpy() if hasattr(data, "iloc") else data[:, columns]
        return np.ascontiguousarray(block, DTYPES[self.elem_type] if dtype is None else dtype)


@dataclass(frozen=True)
class Rows:
    """Rows of data, and the inputs that can take them.

    Attributes
    ----------
    data : ndarray or DataFrame
        As predict takes it.
    forms : tuple of tuple of GraphInput
        The inputs: of numbers in float32, and then in float64. One of all columns, or one for each that the pipeline
        was fitted on, in its order.
    """

    data: Any
    forms: tuple[tuple[GraphInput, ...], ...]

    def feed(self, inputs: tuple[GraphInput, ...], index: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        """Return some rows for onnxruntime, by the inputs' names.

        Parameters
        ----------
        inputs : tuple of GraphInput
            The graph's.
        index : ndarray of int
            The rows' numbers.
        """
        part = self.data.iloc[index] if hasattr(self.data, "iloc") else self.data[index]
        with np.errstate(over="ignore"):  # what is infinite in float32 will be seen in the outputs
            return {entry.name: entry.of(part) for entry in inputs if entry.first is not None}

    def coarse_columns(self, names: Container[str]) -> list[str]:
        """Return columns of which float32 leaves little, the worst first, with its steps and their standard deviation.

        Parameters
        ----------
        names : container of str
            Names of the inputs to look at.
        """
        coarse = []
        for entry in self.forms[0]:
            if entry.name not in names or entry.first is None or entry.elem_type == TensorProto.STRING:
                continue
            values = np.ma.masked_invalid(entry.of(self.data, np.float64))
            with np.errstate(over="ignore", invalid="ignore"):
                steps = np.spacing(np.abs(values).max(axis=0).filled(0.0).astype(np.float32))
            deviations = values.std(axis=0).filled(0.0)
            labels = getattr(self.data, "columns", range(entry.width)) if entry.alias == INPUT else [entry.name]
            for label, step, deviation in zip(labels, np.nan_to_num(steps, nan=np.inf), deviations, strict=True):
                if step > COARSE * deviation > 0.0:
                    coarse.append(
                        (step / deviation, f"{label!r} (steps of {step:.3g} at deviations of {deviation:.3g})")
                    )
        return [text for _, text in sorted(coarse, reverse=True)]


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
        X = np.random.default_rng(0).standard_normal((RANDOM_ROWS, width), np.float32)
    if not hasattr(X, "iloc"):
        X = array_of("X", X)
    if X.ndim != 2 or len(X) == 0:
        raise ValueError(f"X: expected rows and columns, at least one row, got shape {X.shape}")
    if isinstance(X, np.ndarray):
        width = getattr(pipeline, "n_features_in_", X.shape[1])
        if X.shape[1] != width:
            raise ValueError(f"X has {X.shape[1]} columns, but the pipeline was fitted on {width}")
        forms: list[tuple[GraphInput, ...]] = [
            (GraphInput(INPUT, INPUT, 0, width, kind),) for kind in _element_types("X", X)
        ]
    else:
        kinds = [
            _element_types(f"X: column {name!r}", X.iloc[:, place].to_numpy()) for place, name in enumerate(X.columns)
        ]
        forms = [_inputs_of(pipeline, list(X.columns), list(form)) for form in zip(*kinds, strict=True)]
    return Rows(X, tuple(dict.fromkeys(forms)))


def _inputs_of(pipeline: Any, columns: list[Any], elem_types: list[int]) -> tuple[GraphInput, ...]:
    """Return the inputs for a DataFrame's columns of these types."""
    if set(elem_types) in ({TensorProto.FLOAT}, {TensorProto.DOUBLE}) and not _selects_columns(pipeline):
        return (GraphInput(INPUT, INPUT, 0, len(columns), elem_types[0]),)
    fitted = list(getattr(pipeline, "feature_names_in_", columns))  # scikit-learn finds them by name, in any order
    _check_names(fitted)
    places = {column: place for place, column in enumerate(columns)}
    inputs = []
    for number, column in enumerate(fitted):
        place = places.get(column)
        elem_type = TensorProto.FLOAT if place is None else elem_types[place]
        inputs.append(GraphInput(str(column), f"column_{number}", place, 1, elem_type))
    return tuple(inputs)


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
    """Tell whether a step looks at columns one by one."""
    from sklearn.compose import ColumnTransformer

    steps = [*getattr(model, "steps", []), *getattr(model, "transformer_list", [])]
    return isinstance(model, ColumnTransformer) or any(_selects_columns(step) for _, step in steps)


def _element_types(name: str, values: npt.NDArray[Any]) -> tuple[int, int]:
    """Return ONNX's types for an array's elements: where numbers are float32, and where they are float64.

    Whole numbers that such a float does not have are int64, as encoders need them.
    """
    if values.dtype.kind in "OUT" and all(isinstance(value, str) for value in values.ravel()):
        return TensorProto.STRING, TensorProto.STRING
    # Of objects, those that are Python's numbers: scikit-learn takes them too
    numbers = np.array(values.tolist()) if values.dtype.kind == "O" else values
    if numbers.dtype.kind not in "fiub":
        cells = [value for value in values.ravel() if not isinstance(value, str)]
        if len(cells) < values.size and all(map(is_missing, cells)):
            raise ValueError(
                f"{name} holds strings and {cells[0]!r}; ONNX's strings have no missing cell, so let '' stand for one: "
                'fillna("") before the pipeline is fitted, and SimpleImputer(missing_values="") in it'
            )
        advice = "give columns of several types as a DataFrame"
        if values.dtype.kind in "mM":
            advice = (
                "ONNX has no dates: make numbers of it before the pipeline, such as days: "
                "(dates - pd.Timestamp(0)) / pd.Timedelta(days=1)"
            )
        raise ValueError(f"{name} holds neither numbers nor strings (dtype {values.dtype}); {advice}")
    largest = max(int(numbers.max()), -int(numbers.min())) if numbers.dtype.kind in "iu" else 0
    return (
        TensorProto.INT64 if WHOLE_IN_FLOAT32 < largest < 2**63 else TensorProto.FLOAT,
        TensorProto.INT64 if WHOLE_IN_FLOAT64 < largest < 2**63 else TensorProto.DOUBLE,
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
