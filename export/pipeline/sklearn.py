"""`pipeline_to_onnx`: a fitted scikit-learn Pipeline that ends in one of nbdense's estimators, as one ONNX file.

skl2onnx converts what stands before the estimator; `nbdense.export.pipeline.converters` tells it how to convert that.
What it leaves to chance is set afterwards: names of inputs and outputs, opsets and IR version, the batch's dimension,
who made the file. So the same pipeline gives the same bytes in every process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import onnx
from onnx import TensorProto, helper

from nbdense._version import __version__
from nbdense.export.graph.builder import BATCH, OUTPUT
from nbdense.export.graph.checks import check, serialize
from nbdense.export.graph.opsets import checked_opset, newest_opset
from nbdense.export.pipeline.check import Reference
from nbdense.export.pipeline.converters import convert_imputer, refuse_single_class, register_converters
from nbdense.export.pipeline.functions import convert_function, function_shapes
from nbdense.export.pipeline.rows import GraphInput, Rows, rows_of, simplified
from nbdense.export.pipeline.tensor_names import free_name, graphs_in, rename_tensors
from nbdense.export.write.exporter import default_flavour, opset_for
from nbdense.export.write.labels import LABEL
from nbdense.export.write.metadata import as_json, listed_class_names, metadata_of
from nbdense.files import atomic_write

ML_DOMAIN = "ai.onnx.ml"
ML_OPSETS = ((16, 3), (0, 2))  # from that opset on, this one of the classical operators, with no newer IR version
PROBABILITIES = "probabilities"


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

    The rows in ``X`` decide whether float32 will do. Where it changes a label, or an output by more than 1e-3 of its
    standard deviation, as it does with timestamps in seconds, all numbers' inputs are float64 instead (int64 stays for
    those of over 53 bits), and preprocessing computes in that. Where float64 does not help, or skl2onnx or onnxruntime
    has no such form of a step (PolynomialFeatures, PowerTransformer), the export is refused: the error says how many
    rows come out otherwise, and which columns float32 is too coarse for.

    Any name will do that is not empty, valid Unicode and the only one of its kind; of a label that is no string, such
    as a number or a tuple, ``str`` is the name. Where a column has the name of an output, that gets a "_" behind its
    own. The file's metadata has the outputs' names too: "nbdense_outputs", a JSON object such as {"label": "label_",
    "probabilities": "probabilities"}, in the outputs' order.

    Parameters
    ----------
    pipeline : Pipeline, MLPClassifier, MLPRegressor, or a search that has found one of these
        Fitted; its last step is one of `nbdense.estimators`, and may have been quantized (`nbdense.quant.quantize`).
        What stands before must be known to skl2onnx.
    path : path, optional
        File to write; replaced, in one step, if it exists. None writes none.
    X : array-like or DataFrame, (rows, columns), optional
        Some rows as ``predict`` takes them, the more the better: the inputs' types are theirs, and on them onnxruntime
        is compared. By default all columns are numbers, and the rows are random ones around 0, on which the damage to
        numbers far from 0 is not seen.
    opset : int, optional
        Opset, from 13 to the newest that skl2onnx knows; by default 17, with IR version 8, or what the network needs.
    class_names : sequence of str, optional
        What the classes are called in the file's metadata, "class_names"; by default their labels.
    metadata : mapping of str to str, number, list or dict, optional
        What else the file shall say of itself; see `to_onnx`.
    verify : bool
        Whether to refuse what does not agree in onnxruntime with ``predict`` and ``predict_proba`` on these rows, at
        batch sizes 1, 7, 64 and all rows, before anything is written. Without, the file is the same wherever one
        agrees, and else the one with float32 inputs. Where onnxruntime is not installed nothing is compared, and
        inputs are float32. onnx's checker runs in any case.

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
        does not fit, a column's name cannot be an input's (the column is named), or the opset, class names or metadata
        do not fit.
    RuntimeError
        If onnxruntime cannot load the model or computes something else, of how many rows; nothing is written.
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
    network = estimator.model_.network
    number = _opset_of(opset, network)
    classes = getattr(estimator, "classes_", None)
    if class_names is not None and classes is None:
        raise ValueError("pipeline_to_onnx: class_names are a classifier's; this pipeline ends in a regressor")
    names = class_names if class_names is not None or classes is None else [str(label) for label in classes]
    listed = None if names is None else listed_class_names(names, len(estimator.classes_))
    entries = metadata_of(default_flavour(network), metadata, listed)
    if getattr(network, "report", None):
        entries["nbdense_report"] = as_json(network.report)
    simple = simplified(pipeline)
    rows = rows_of(simple, X)
    reference = _reference(pipeline, estimator, rows, verify)

    def write(inputs: tuple[GraphInput, ...]) -> onnx.ModelProto:
        model = _convert(simple, estimator, inputs, number)
        outputs = _set_names(model, inputs)
        _set_versions(model, number, {**entries, "nbdense_outputs": json.dumps(outputs)})
        check(model, "the exported pipeline")
        return model

    model = _first_that_agrees(write, rows, reference, verify)
    if path is not None:
        atomic_write(path, serialize(model))
    return model


def _reference(pipeline: Any, estimator: Any, rows: Rows, verify: bool) -> Reference | None:
    """Return what the pipeline predicts; None if nothing can be compared with it."""
    if find_spec("onnxruntime") is None:
        return None
    try:
        return Reference(pipeline, estimator, rows)
    except ValueError:
        if verify:
            raise
        return None


def _first_that_agrees(
    write: Callable[[tuple[GraphInput, ...]], onnx.ModelProto], rows: Rows, reference: Reference | None, verify: bool
) -> onnx.ModelProto:
    """Return the model with float32 inputs, or with float64 ones where only that computes what the pipeline does.

    Without ``verify`` the first will do where neither does.
    """
    models: list[onnx.ModelProto] = []
    problems: list[Exception] = []
    for inputs in rows.forms:
        try:
            models.append(write(inputs))
            if reference is not None:
                reference.check(models[-1], inputs)
            return models[-1]
        except (ValueError, RuntimeError) as error:
            problems.append(error)
    if models and not verify:
        return models[0]
    message, *more = (str(problem).rstrip(".") for problem in problems)
    if more:
        message += " (with float64 inputs too)" if more == [message] else f". With float64 inputs: {more[0]}"
    coarse = rows.coarse_columns({entry.name for entry in models[0].graph.input}) if models else []
    if coarse:
        message += (
            f". float32 is coarse for column {', '.join(coarse[:3])}: subtract what its values have in common before "
            "the pipeline, or scale it there"
        )
    kind = ValueError if isinstance(problems[0], ValueError) else RuntimeError
    raise kind(f"pipeline_to_onnx: nothing was written: {message}") from problems[0]


# -- from a pipeline to a model --------------------------------------------------------------------------------------


def _opset_of(value: int | None, network: Any) -> int:
    from skl2onnx import __max_supported_opset__

    if value is None:
        return opset_for(None, network)
    return checked_opset("pipeline_to_onnx", value, min(__max_supported_opset__, newest_opset()), "skl2onnx")


def _last_step(pipeline: Any) -> Any:
    """Return the estimator at the end; a TypeError if it is not nbdense's, a ValueError if it is not fitted."""
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


def _convert(pipeline: Any, estimator: Any, inputs: tuple[GraphInput, ...], opset: int) -> onnx.ModelProto:
    """Return the simplified pipeline as skl2onnx writes it, its inputs under their aliases."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import FunctionTransformer

    kinds: dict[int, Any] = {
        TensorProto.FLOAT: data_types.FloatTensorType,
        TensorProto.DOUBLE: data_types.DoubleTensorType,
        TensorProto.INT64: data_types.Int64TensorType,
        TensorProto.STRING: data_types.StringTensorType,
    }
    ml_opset = next(number for since, number in ML_OPSETS if opset >= since)
    try:
        return convert_sklearn(
            pipeline,
            name="nbdense",
            initial_types=[(entry.alias, kinds[entry.elem_type]([None, entry.width])) for entry in inputs],
            custom_conversion_functions={SimpleImputer: convert_imputer, FunctionTransformer: convert_function},
            custom_shape_calculators={FunctionTransformer: function_shapes},
            target_opset={"": opset, ML_DOMAIN: ml_opset},
            options={id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None,
        )
    except ValueError:
        raise
    except Exception as error:  # RuntimeError, TypeError, AssertionError: skl2onnx raises one or the other
        raise ValueError(f"skl2onnx cannot convert the pipeline: {error}") from error


def _set_names(model: onnx.ModelProto, inputs: tuple[GraphInput, ...]) -> dict[str, str]:
    """Give the inputs the user's names; return the outputs' names, which make room for them, by their roles."""
    graph = model.graph
    read = {name for part in graphs_in(graph) for node in part.node for name in node.input}
    kept = [entry for entry in graph.input if entry.name in read]  # no column that nothing looks at
    del graph.input[:]
    graph.input.extend(kept)
    new = {entry.alias: entry.name for entry in inputs if entry.alias in read}
    lacking = [entry.name for entry in inputs if entry.alias in read and entry.first is None]
    if lacking:
        raise ValueError(f"X lacks columns that the pipeline reads: {', '.join(map(repr, lacking))}")
    outputs = {}
    for name, entry in zip([OUTPUT] if len(graph.output) == 1 else [LABEL, PROBABILITIES], graph.output, strict=True):
        outputs[name] = new[entry.name] = free_name(name, new.values())
    rename_tensors(graph, new)
    for entry in (*graph.input, *graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = BATCH
    return outputs


def _set_versions(model: onnx.ModelProto, opset: int, entries: Mapping[str, str]) -> None:
    """Set what skl2onnx leaves to chance, and what to_onnx's files say of themselves."""
    versions = {entry.domain: entry.version for entry in model.opset_import} | {"": opset}
    used = {"", *(node.domain for part in graphs_in(model.graph) for node in part.node)}
    opsets = [helper.make_opsetid(domain, versions[domain]) for domain in sorted(used)]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    known = [entry for entry in opsets if entry.domain in ("", ML_DOMAIN)]
    model.ir_version = int(helper.find_min_ir_version_for(known))
    model.producer_name, model.producer_version, model.domain = "nbdense", __version__, ""
    model.model_version = 0
    helper.set_model_props(model, {"nbdense_version": __version__, **entries})
