"""`pipeline_to_onnx`: a fitted scikit-learn Pipeline that ends in one of nbdense's estimators, as one ONNX file.

skl2onnx converts what stands before the estimator; `nbdense.export.converters` tells it how to convert that. What it
leaves to chance is set afterwards: opsets and IR version, the batch's dimension, who made the file. So the same
pipeline gives the same bytes in every process.
"""

from __future__ import annotations

import json
import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from nbdense._validate import array_of
from nbdense._version import __version__
from nbdense.export.converters import refuse_single_class, register_converters
from nbdense.export.exporter import DEFAULT_OPSET, OLDEST_OPSET, _class_names, _metadata
from nbdense.export.graph import BATCH, INPUT, check, newest_opset, serialize
from nbdense.export.verification import BATCH_SIZES, FLOAT32_FACTOR, RANDOM_ROWS, TOLERANCE, _differences
from nbdense.files import atomic_write

ML_DOMAIN = "ai.onnx.ml"
ML_OPSETS = ((16, 3), (0, 2))  # from that opset on, this one of the classical operators, with no newer IR version
WHOLE_IN_FLOAT32 = 2**24  # up to here float32 has every whole number


def pipeline_to_onnx(
    pipeline: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    X: Any = None,
    opset: int | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    verify: bool = True,
) -> onnx.ModelProto:
    """Export a fitted scikit-learn Pipeline with its preprocessing, and see that onnxruntime computes the same.

    A classifier's graph gives ``label`` [batch], int64 or strings (for bools 0 and 1), and ``probabilities`` [batch,
    classes], float32; where rows have several labels, ``label`` is [batch, labels] of 0 and 1. A regressor's gives
    ``output`` [batch, outputs]. The input is ``input`` [batch, columns], float32; or, where ``X`` is a DataFrame with
    columns of strings or with a ColumnTransformer behind it, one [batch, 1] for each column that is used, under its
    name: float32, strings, or int64 for whole numbers of over 24 bits.

    Parameters
    ----------
    pipeline : Pipeline, MLPClassifier, MLPRegressor, or a search that has found one of these
        Fitted; its last step is one of `nbdense.estimators`. What stands before must be known to skl2onnx.
    path : path, optional
        Where to write the file; replaced, in one step, if it exists. None writes none.
    X : array-like or DataFrame, (rows, columns), optional
        Some rows as ``predict`` takes them: the inputs' types are theirs, and on them onnxruntime is compared. By
        default all columns are numbers, and the rows are random ones.
    opset : int, optional
        From 13 to the newest that skl2onnx knows; by default 17, with IR version 8.
    class_names : sequence of str, optional
        What the classes are called in the file's metadata, "class_names"; by default their labels.
    metadata : mapping of str to str, number, list or dict, optional
        What else the file shall say of itself; see `to_onnx`.
    verify : bool
        Whether to compare with ``predict`` and ``predict_proba`` in onnxruntime, at batch sizes 1, 7, 64 and all rows,
        before anything is written; where onnxruntime is installed. onnx's checker runs in any case.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ImportError
        If skl2onnx or scikit-learn is not installed.
    TypeError
        If it does not end in an estimator of nbdense's.
    ValueError
        If it is not fitted or on one class only, a step has no converter, a layer has no ONNX form, ``X`` is needed or
        does not fit, or the opset, names or metadata do not.
    RuntimeError
        If onnxruntime cannot load the model or computes something else; nothing is written.
    OSError
        If the folder does not exist or cannot be written; it is named.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from nbdense.estimators import MLPClassifier
    >>> from nbdense.export import pipeline_to_onnx
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier((8,), tol=0.1, random_state=0)
    >>> model = pipeline_to_onnx(make_pipeline(StandardScaler(), mlp).fit(X, y), X=X)
    >>> [node.op_type for node in model.graph.node]
    ['Scaler', 'Gemm', 'Relu', 'Gemm', 'Softmax', 'ArgMax', 'Gather']
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    register_converters()
    pipeline = getattr(pipeline, "best_estimator_", pipeline)
    estimator = _last_step(pipeline)
    number = _opset_of(opset)
    classes = getattr(estimator, "classes_", None)
    if class_names is not None and classes is None:
        raise ValueError("pipeline_to_onnx: class_names are a classifier's; this pipeline ends in a regressor")
    names = class_names if class_names is not None or classes is None else [str(label) for label in classes]
    said = {"nbdense_flavour": "float", **_metadata(metadata)}
    if names is not None:
        said["class_names"] = json.dumps(_class_names(names, len(estimator.classes_)), ensure_ascii=False)
    rows = _rows_of(pipeline, X)
    model = _convert(pipeline, estimator, rows, number)
    _settle(model, number, said)
    check(model, "the exported pipeline")
    if verify and find_spec("onnxruntime") is not None:
        _verify(model, pipeline, estimator, rows)
    if path is not None:
        atomic_write(path, serialize(model))
    return model


# -- from a pipeline to a model --------------------------------------------------------------------------------------


def _opset_of(value: int | None) -> int:
    from skl2onnx import __max_supported_opset__

    newest = min(__max_supported_opset__, newest_opset())
    try:
        number = DEFAULT_OPSET if value is None else operator.index(value)
    except TypeError:
        number = 0
    if not OLDEST_OPSET <= number <= newest:
        raise ValueError(
            f"pipeline_to_onnx: opset must be from {OLDEST_OPSET} to {newest}, the installed skl2onnx's, got {value!r}"
        )
    return number


def _last_step(pipeline: Any) -> Any:
    """The estimator at the end; a TypeError if it is not nbdense's, a ValueError if it is not fitted."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import check_is_fitted

    from nbdense.estimators import MLPClassifier, MLPRegressor

    estimator = pipeline.steps[-1][1] if isinstance(pipeline, Pipeline) else pipeline
    if not isinstance(estimator, MLPClassifier | MLPRegressor):
        end = "" if estimator is pipeline else f" that ends in {type(estimator).__name__}"
        raise TypeError(
            "pipeline_to_onnx: expected a Pipeline that ends in an MLPClassifier or MLPRegressor of "
            f"nbdense.estimators, got {type(pipeline).__name__}{end}"
        )
    check_is_fitted(estimator, "model_")
    refuse_single_class(estimator)
    return estimator


@dataclass(frozen=True)
class _Rows:
    """Rows of data, and how onnxruntime gets them.

    ``data`` is an array or a DataFrame as predict takes it, in the inputs' precision; ``types`` has an element type for
    each input, ``columns`` the DataFrame's column that it is; None: there is one input of all columns.
    """

    data: Any
    types: dict[str, int]
    columns: dict[str, Any] | None
    width: int

    def take(self, index: npt.NDArray[np.intp], dtype: npt.DTypeLike = np.float32) -> Any:
        """Some rows for predict, float numbers in ``dtype``."""
        part = self.data.iloc[index] if hasattr(self.data, "iloc") else self.data[index]
        if self.columns is None:
            return part.astype(dtype) if self.types[INPUT] == TensorProto.FLOAT else part
        floats = [name for name, kind in self.types.items() if kind == TensorProto.FLOAT]
        return part.astype({self.columns[name]: dtype for name in floats if part[self.columns[name]].dtype.kind == "f"})

    def feed(self, index: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        """The same rows for onnxruntime."""
        part = self.data.iloc[index] if hasattr(self.data, "iloc") else self.data[index]
        dtypes: dict[int, Any] = {
            TensorProto.FLOAT: np.float32,
            TensorProto.INT64: np.int64,
            TensorProto.STRING: object,
        }
        if self.columns is None:
            return {INPUT: np.ascontiguousarray(part, dtypes[self.types[INPUT]])}
        return {
            name: part[self.columns[name]].to_numpy().astype(dtypes[kind]).reshape(-1, 1)
            for name, kind in self.types.items()
        }


def _rows_of(pipeline: Any, X: Any) -> _Rows:
    """The rows to convert for and to compare on."""
    if X is None:
        width = getattr(pipeline, "n_features_in_", None)
        if width is None or _selects_columns(pipeline):
            raise ValueError("pipeline_to_onnx: give X, some rows of data: the inputs' types are not known without")
        random = np.random.default_rng(0).standard_normal((RANDOM_ROWS, width), np.float32)
        return _Rows(random, {INPUT: TensorProto.FLOAT}, None, width)
    if not hasattr(X, "iloc"):
        X = array_of("X", X)
    if X.ndim != 2 or len(X) == 0:
        raise ValueError(f"X: expected rows and columns, at least one row, got shape {X.shape}")
    if isinstance(X, np.ndarray):
        width = getattr(pipeline, "n_features_in_", X.shape[1])
        if X.shape[1] != width:
            raise ValueError(f"X has {X.shape[1]} columns, but the pipeline was fitted on {width}")
        return _Rows(X, {INPUT: _element_type("X", X)}, None, X.shape[1])
    columns = {str(column): column for column in X.columns}
    if len(columns) != X.shape[1]:
        raise ValueError("X: its columns' names must differ, as strings too")
    types = {name: _element_type(f"X: column {name!r}", X[column].to_numpy()) for name, column in columns.items()}
    if set(types.values()) == {TensorProto.FLOAT} and not _selects_columns(pipeline):
        return _Rows(X, {INPUT: TensorProto.FLOAT}, None, X.shape[1])
    return _Rows(X, types, columns, 1)


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


def _convert(pipeline: Any, estimator: Any, rows: _Rows, opset: int) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.pipeline import Pipeline

    kinds: dict[int, Any] = {TensorProto.FLOAT: FloatTensorType, TensorProto.INT64: Int64TensorType}
    kinds[TensorProto.STRING] = StringTensorType
    types = [(name, kinds[kind]([None, rows.width])) for name, kind in rows.types.items()]
    if isinstance(pipeline, Pipeline):  # skl2onnx does not know steps that do nothing
        pipeline = Pipeline([(name, step) for name, step in pipeline.steps if step not in (None, "passthrough")])
    ml_opset = next(number for since, number in ML_OPSETS if opset >= since)
    try:
        return convert_sklearn(
            pipeline,
            name="nbdense",
            initial_types=types,
            target_opset={"": opset, ML_DOMAIN: ml_opset},
            options={id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None,
        )
    except (RuntimeError, NotImplementedError) as error:  # MissingConverter and the like
        raise ValueError(f"skl2onnx cannot convert the pipeline: {error}") from error


def _settle(model: onnx.ModelProto, opset: int, said: Mapping[str, str]) -> None:
    """Set what skl2onnx leaves to chance, and what to_onnx's files say of themselves."""
    versions = {entry.domain: entry.version for entry in model.opset_import} | {"": opset}
    used = {"", *(node.domain for node in model.graph.node)}
    opsets = [helper.make_opsetid(domain, versions[domain]) for domain in sorted(used)]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    known = [entry for entry in opsets if entry.domain in ("", ML_DOMAIN)]
    model.ir_version = int(helper.find_min_ir_version_for(known))
    model.producer_name, model.producer_version, model.domain = "nbdense", __version__, ""
    model.model_version = 0
    helper.set_model_props(model, {"nbdense_version": __version__, **said})
    read = {name for node in model.graph.node for name in node.input}
    inputs = [entry for entry in model.graph.input if entry.name in read]  # no column that nothing looks at
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = BATCH


# -- verification ----------------------------------------------------------------------------------------------------


def _verify(model: onnx.ModelProto, pipeline: Any, estimator: Any, rows: _Rows) -> None:
    """Raise unless onnxruntime computes what the pipeline does.

    The bound is `verify_onnx`'s: 1e-5, absolute or relative to a row's largest output; or four times what float32 costs
    the preprocessing, seen from float64. A label may differ only where two probabilities are closer than that.
    """
    everything = np.arange(len(rows.data))
    classifies = hasattr(estimator, "classes_")
    predict = pipeline.predict_proba if classifies else pipeline.predict
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X (has|does not have valid) feature names", UserWarning)
        try:
            expected, precise = (_as_rows(predict(rows.take(everything, dtype))) for dtype in (np.float32, np.float64))
            labels = pipeline.predict(rows.take(everything)) if classifies else None
        except ValueError as error:
            raise ValueError(
                f"the pipeline does not take these rows, so that nothing can be compared; give other X: {error}"
            ) from error
    tolerance = max(TOLERANCE, FLOAT32_FACTOR * min(_differences([(precise, expected)])))
    run = _session(model)
    for size in dict.fromkeys((*BATCH_SIZES, len(everything))):
        index = np.arange(size) % len(everything)
        found = run(rows.feed(index))
        difference = min(_differences([(expected[index], _as_rows(found[-1]))]))
        if not difference <= tolerance:
            raise RuntimeError(
                f"onnxruntime does not compute what the pipeline predicts, nothing was written: at batch size "
                f"{len(index)} they differ by {difference:.3g}, allowed {tolerance:.3g}"
            )
        if labels is None:
            continue
        wrong = _onnx_labels(labels[index]) != found[0]
        unsure = _unsure(expected[index], tolerance, estimator._multilabel)
        if found[0].shape != labels[index].shape or (wrong & ~unsure).any():
            raise RuntimeError(
                f"onnxruntime does not give the pipeline's labels, nothing was written: {int(wrong.sum())} of "
                f"{wrong.size} differ at batch size {len(index)}"
            )


def _as_rows(outputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return outputs.reshape(len(outputs), -1)


def _onnx_labels(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return labels.astype(np.int64) if labels.dtype.kind in "biuf" else labels.astype(object)


def _unsure(probabilities: npt.NDArray[Any], tolerance: float, multilabel: bool) -> npt.NDArray[np.bool_]:
    """Where rounding may change the label."""
    if multilabel:
        return np.asarray(np.abs(probabilities - 0.5) <= tolerance)
    largest = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(largest[:, 1] - largest[:, 0] <= 2 * tolerance)


def _session(model: onnx.ModelProto) -> Any:
    """What runs the model in onnxruntime: from a dict of its inputs, and more, to all outputs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise RuntimeError(
            f"onnxruntime {ort.__version__} cannot load the model; verify=False exports without it: {error}"
        ) from error
    names = [entry.name for entry in model.graph.input]

    def run(feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        try:
            return list(session.run(None, {name: feed[name] for name in names}))
        except Exception as error:
            raise RuntimeError(f"onnxruntime cannot run the exported pipeline: {error}") from error

    return run
