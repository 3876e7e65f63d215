"""Comparison of what LiteRT computes of a TFLite file with what nbdense computes.

Integers are compared in the interpreter whose kernels round as the network does: "onnx" in the default one (XNNPACK),
"tflite" in the reference kernels, "ruy" in the optimised built-in ones; "gemmlowp", which none of them has, in the
reference kernels, and then a few may be off by one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.export.networks import network_of, shapes_of, with_predict
from nbdense.export.tflite.file import DamagedFileError, parse
from nbdense.export.tflite.quantized import INT8_OPERATORS
from nbdense.export.tflite.schema import Tensor, TfliteModel
from nbdense.export.verify.integers import IN_FLOAT, rows_agree
from nbdense.export.verify.tolerance import TOLERANCE, cost_of_float32, largest_differences
from nbdense.files import FileFormatError
from nbdense.network import Network
from nbdense.quant.model.network import QuantizedNetwork

RANDOM_ROWS = 256
KERNELS = {"onnx": "default", "tflite": "reference", "gemmlowp": "reference", "ruy": "optimised"}  # by rounding
INEXACT = 0.25  # share of the largest output that values may be off by where an operator is not nbdense's
_RESOLVERS = {"default": "AUTO", "reference": "BUILTIN_REF", "optimised": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}


@dataclass(frozen=True)
class TfliteVerification:
    """The result of comparing a TFLite file with a model.

    Attributes
    ----------
    agrees : bool
        Whether they agree: floats as `verify_onnx` has it, all integers, or most of them where ``exact`` is False.
    rows : int
        Rows of data.
    kernels : str
        LiteRT's kernels that ran: "default", "reference" or "optimised".
    max_absolute : float
        Largest difference of an output.
    integers : int or None
        Output integers compared; None for a model that ends in float.
    differing_integers : int or None
        How many of them differ.
    max_integer_difference : int or None
        Largest difference of an integer.
    exact : bool
        Whether every operator computes exactly what nbdense does.
    """

    agrees: bool
    rows: int
    kernels: str
    max_absolute: float
    integers: int | None = None
    differing_integers: int | None = None
    max_integer_difference: int | None = None
    exact: bool = False

    def __str__(self) -> str:
        parts = [
            "agrees" if self.agrees else "differs",
            f"{self.rows} rows in LiteRT's {self.kernels} kernels",
            f"largest difference {self.max_absolute:.3g}",
        ]
        if self.integers is not None:
            parts.append(
                f"{self.differing_integers} of {self.integers} integers differ, "
                f"by {self.max_integer_difference} at most"
            )
        return "; ".join(parts)


def run(content: bytes, x: npt.NDArray[Any], kernels: str = "default") -> npt.NDArray[Any]:
    """Return what LiteRT computes of a file for rows of data, all of them a batch.

    Parameters
    ----------
    content : bytes
        The file.
    x : ndarray
        Rows of the input's type.
    kernels : str
        "default" (XNNPACK), "reference" or "optimised".

    Raises
    ------
    RuntimeError
        If it cannot load or run it.
    """
    from ai_edge_litert import interpreter

    resolver = interpreter.OpResolverType[_RESOLVERS[kernels]]
    try:
        session = interpreter.Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
        session.resize_tensor_input(session.get_input_details()[0]["index"], x.shape)
        session.allocate_tensors()
        session.set_tensor(session.get_input_details()[0]["index"], x)
        session.invoke()
    except ValueError as error:
        raise RuntimeError(f"LiteRT cannot run the file: {error}") from error
    made: npt.NDArray[Any] = session.get_tensor(session.get_output_details()[0]["index"])
    return made


def verify_tflite(source: str | os.PathLike[str] | bytes, model: Any, x: Any = None) -> TfliteVerification:
    """Compare a TFLite file with the model that it was made from, in LiteRT.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    x : array-like, (rows, ..., n_in), optional
        Data; by default seeded standard normal rows.

    Returns
    -------
    TfliteVerification
        Its ``agrees`` says whether they do. Integers are compared in the kernels that round as the network does, all of
        them where the file takes integers and every operator is exact; floats as `nbdense.export.verify_onnx` does.

    Raises
    ------
    ImportError
        If ai-edge-litert is not installed.
    OSError
        If the file cannot be read.
    TypeError, ValueError
        If the file is damaged, or the model or ``x`` does not fit.
    RuntimeError
        If LiteRT cannot run it.
    """
    if find_spec("ai_edge_litert") is None:
        raise ImportError("verify_tflite needs ai-edge-litert: pip install 'nbdense[tflite]'")
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        made = parse(content)
    except DamagedFileError as error:
        raise FileFormatError(f"the file is damaged or truncated, or no TFLite file: {error}") from error
    return compare(content, made, model, x)


def compare(content: bytes, made: TfliteModel, model: Any, x: Any = None) -> TfliteVerification:
    """Run `verify_tflite` on the file of a model in plain data.

    Parameters
    ----------
    content : bytes
        The file.
    made : TfliteModel
        What is in it.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    x : array-like, (rows, ..., n_in), optional
        Data.
    """
    network = network_of(model)
    shape, _ = shapes_of(network)
    if x is None:
        rows = np.random.default_rng(0).standard_normal((RANDOM_ROWS, *shape), np.float32)
    else:
        rows = np.ascontiguousarray(_checks.rows("x", x, shape, "the model"), np.float32).reshape(-1, *shape)
    source, target, reference = made.tensors[made.input], made.tensors[made.output], with_predict(model)
    exact, kernels, counted = False, "default", dict[str, Any]()
    if isinstance(network, QuantizedNetwork) and all(form is not None for form in network.formats[1:]):
        exact, kernels = _is_exact(made, network.rounding), KERNELS[network.rounding]
    computed = run(content, _given(source, rows), kernels)
    expected = reference.predict_integers(rows) if target.dtype == "int8" else reference.predict(rows)
    computed = computed.reshape(expected.shape)
    if target.dtype == "int8":
        away = np.abs(computed.astype(int) - expected)
        share, most = (0.0, 0) if exact and source.dtype == "int8" else IN_FLOAT
        counted = {"integers": away.size, "differing_integers": int(np.count_nonzero(away))}
        counted["max_integer_difference"] = absolute = int(away.max())
        agrees = counted["differing_integers"] <= share * away.size and absolute <= most
    else:
        absolute, relative = largest_differences([(expected, computed)])  # type: ignore[assignment]
        if isinstance(network, Network):
            cost = cost_of_float32(network, rows)
            agrees = min(absolute, relative) <= max(TOLERANCE, cost if np.isfinite(cost) else 0.0)
        elif exact or kernels == "default":
            agrees = rows_agree(expected, computed, TOLERANCE)
        else:
            agrees = absolute <= INEXACT * float(np.abs(expected).max())
    return TfliteVerification(
        agrees=bool(agrees), rows=len(rows), kernels=kernels, max_absolute=absolute, exact=exact, **counted
    )


def _given(source: Tensor, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return rows as a file takes them: the integers that nbdense makes of them, which LiteRT rounds in another way."""
    if source.quantization is None:
        return rows
    scale, zero_point = source.quantization.scales[0], int(source.quantization.zero_points[0])
    return np.clip(np.rint(rows / scale) + zero_point, -128, 127).astype(np.int8)


def _is_exact(made: TfliteModel, rounding: str) -> bool:
    """Tell whether LiteRT's kernels of a rounding compute each operator on integers exactly as nbdense does."""
    on_integers = {operator.kind for operator in made.operators if made.tensors[operator.output].dtype == "int8"}
    others = {"SOFTMAX", *INT8_OPERATORS.values(), *(["ADD"] if rounding == "onnx" else [])}
    return rounding != "gemmlowp" and not on_integers & others
