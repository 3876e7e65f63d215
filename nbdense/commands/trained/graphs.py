"""A pipeline as one ONNX file on a table's raw columns, and rows as such a file reads them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.errors import CommandError, need_extra
from nbdense.commands.tables.reading import EXTRA
from nbdense.commands.tables.schema import Schema

ROWS = 2000  # on which onnxruntime is compared
_TYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def graph_of(pipeline: Any, schema: Schema, features: Any) -> tuple[bytes | None, str]:
    """Return a pipeline's ONNX file, or why there is none.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    schema : Schema
        The columns that it reads, of which the file's metadata tells.
    features : DataFrame
        Rows; on some of them onnxruntime has to give what the pipeline predicts.

    Returns
    -------
    content : bytes or None
    problem : str
        Why there is none.
    """
    with need_extra(EXTRA, "ONNX files of pipelines"):
        from nbdense.export import pipeline_to_onnx

    some = np.unique(np.linspace(0, len(features) - 1, ROWS).astype(np.int64))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = pipeline_to_onnx(pipeline, X=features.iloc[some], metadata=schema.graph_notes())
    except (RuntimeError, ValueError) as error:
        return None, " ".join(str(error).split())
    return model.SerializeToString(deterministic=True), ""


def run_graph(content: bytes, features: Any) -> dict[str, npt.NDArray[Any]]:
    """Return what onnxruntime computes of a table's columns.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    features : DataFrame
        Columns of data, as `features_of` gives them.

    Returns
    -------
    dict of str to ndarray
        "label" and "probabilities", or "output", whatever the file calls them.

    Raises
    ------
    CommandError
        If onnxruntime is not installed, or does not take the file or the rows.
    """
    with need_extra("onnxruntime", "comparisons with ONNX files"):
        import onnxruntime as ort
    from nbdense.export.verify.runtime import session_options

    try:
        session = ort.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])
        feed = {entry.name: _cells(features[entry.name], entry.type) for entry in session.get_inputs()}
        outputs = session.run(None, feed)
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise CommandError(f"onnxruntime cannot run the ONNX file: {' '.join(str(error).split())}") from error
    roles = ["label", "probabilities"] if len(outputs) == 2 else ["output"]
    return dict(zip(roles, outputs, strict=True))


def _cells(column: Any, kind: str) -> npt.NDArray[Any]:
    cells: npt.NDArray[Any] = column.to_numpy(_TYPES.get(kind, object)).reshape(-1, 1)
    return cells
