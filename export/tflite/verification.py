"""Comparison of what LiteRT computes of a TFLite file with what nbdense computes.

Integers are compared in the interpreter whose kernels round as the network does: "onnx" in the default one (XNNPACK),
"tflite" in the reference kernels, "ruy" in the optimised built-in ones; "gemmlowp", which none of them has, in the
reference kernels, and then a few may be off by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.export.networks import has_integers, network_of, shapes_of, with_predict
from nbdense.export.verify.integers import IN_FLOAT, rows_agree
from nbdense.export.verify.tolerance import TOLERANCE, cost_of_float32, largest_differences
from nbdense.network import Network

RANDOM_ROWS = 256
KERNELS = {"onnx": "default", "tflite": "reference", "gemmlowp": "reference", "ruy": "optimised"}  # by rounding
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


def compare(content: bytes, integer_content: bytes | None, model: Any, x: Any, exact: bool) -> TfliteVerification:
    """Compare a file with the model that it was made from.

    Parameters
    ----------
    content : bytes
        The file.
    integer_content : bytes or None
        The same model with integers at both ends; None where it has none there.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.
    x : array-like, (rows, ..., n_in), optional
        Data; by default seeded standard normal rows.
    exact : bool
        Whether every operator computes exactly what nbdense does.
    """
    network = network_of(model)
    shape, _ = shapes_of(network)
    if x is None:
        rows = np.random.default_rng(0).standard_normal((RANDOM_ROWS, *shape), np.float32)
    else:
        rows = np.ascontiguousarray(_checks.rows("x", x, shape, "the model"), np.float32).reshape(-1, *shape)
    reference = with_predict(model)
    expected = reference.predict(rows)
    computed, kernels = run(content, rows).reshape(expected.shape), "default"
    absolute, relative = largest_differences([(expected, computed)])
    counted: dict[str, Any] = {}
    if isinstance(network, Network):
        cost = cost_of_float32(network, rows)
        agrees = min(absolute, relative) <= max(TOLERANCE, cost if np.isfinite(cost) else 0.0)
    elif integer_content is not None:
        kernels = KERNELS[network.rounding]
        agrees, counted = _compare_integers(integer_content, reference, rows, kernels, exact)
    else:
        agrees = rows_agree(expected, computed, TOLERANCE) if has_integers(network) else absolute <= 1e-4
    return TfliteVerification(
        agrees=bool(agrees), rows=len(rows), kernels=kernels, max_absolute=absolute, exact=exact, **counted
    )


def _compare_integers(
    content: bytes, reference: Any, rows: npt.NDArray[np.float32], kernels: str, exact: bool
) -> tuple[bool, dict[str, Any]]:
    """Compare the last integers for integers of the input, which LiteRT rounds at ties in ways of its own."""
    network = reference.network
    index = next(i for i in range(len(network.layers)) if 0 in network.inputs_of(i))
    form = network.layers[index].input_formats[network.inputs_of(index).index(0)]
    integers = np.clip(np.rint(rows / np.float32(form[0])) + form[1], -128, 127).astype(np.int8)
    expected = reference.predict_integers(rows)
    away = np.abs(run(content, integers, kernels).reshape(expected.shape).astype(int) - expected)
    differing, largest = int(np.count_nonzero(away)), int(away.max())
    share, most = (0.0, 0) if exact else IN_FLOAT
    agrees = differing <= share * away.size and largest <= most
    return agrees, {"integers": away.size, "differing_integers": differing, "max_integer_difference": largest}
