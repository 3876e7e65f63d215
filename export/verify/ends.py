"""The ends of a file that takes or gives integers: rows on their way in, values on their way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from nbdense.export.verify.runtime import Session
from nbdense.network import Network
from nbdense.quant.layers.base import Format
from nbdense.quant.layers.checks import LIMITS
from nbdense.quant.model.network import QuantizedNetwork

_INTEGERS = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8"}


@dataclass(frozen=True)
class Ends:
    """Scales and zero points of the integers that a file takes and gives, or None for floats.

    Attributes
    ----------
    input, output : (float, int) or None
        Scale and zero point.
    dtype : str
        The integers' type.
    """

    input: Format
    output: Format
    dtype: str

    def around(self, run: Session) -> Session:
        """Return a function that runs a file on floats, and gives its last output as floats.

        Parameters
        ----------
        run : callable
            What runs the file.
        """

        def on_floats(rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
            outputs = run(rows if self.input is None else integers_of(rows, self.input, self.dtype))
            return outputs if self.output is None else [*outputs[:-1], values_of(outputs[-1], self.output)]

        return on_floats

    def predicting(self, model: Any) -> Any:
        """Return what predicts the values that the file's outputs stand for.

        Parameters
        ----------
        model : QuantizedModel, or what predicts as one does
            The model.
        """
        return model if self.output is None else _BeforeSoftmax(model, self.output)


@dataclass(frozen=True)
class _BeforeSoftmax:
    """A quantized model that predicts what its last integers stand for."""

    model: Any
    form: tuple[float, int]

    @property
    def network(self) -> Any:
        return self.model.network

    def predict(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return values_of(self.model.predict_integers(x), self.form)

    def predict_integers(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        integers: npt.NDArray[Any] = self.model.predict_integers(x)
        return integers


def integers_of(rows: npt.NDArray[Any], form: tuple[float, int], dtype: str) -> npt.NDArray[Any]:
    """Return the integers that a quantized network makes of its input.

    Parameters
    ----------
    rows : ndarray of float32
        The input.
    form : (float, int)
        Scale and zero point.
    dtype : str
        The integers' type.
    """
    (scale, zero_point), limits = form, LIMITS[dtype]
    return np.clip(np.rint(rows / np.float32(scale)) + zero_point, *limits).astype(dtype)


def values_of(integers: npt.NDArray[Any], form: tuple[float, int]) -> npt.NDArray[np.float32]:
    """Return the floats that integers stand for.

    Parameters
    ----------
    integers : ndarray
        The integers.
    form : (float, int)
        Their scale and zero point.
    """
    scale, zero_point = form
    return (integers.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)


def ends_of(proto: onnx.ModelProto, network: Network | QuantizedNetwork) -> Ends:
    """Return the ends of a file that was made of a network.

    Parameters
    ----------
    proto : ModelProto
        The file.
    network : Network or QuantizedNetwork
        The network.

    Raises
    ------
    ValueError
        If the file has integers where the network has none, or of another type.
    """
    forms: dict[str, Format] = {}
    for side, value in (("input", proto.graph.input[0]), ("output", proto.graph.output[-1])):
        dtype = _INTEGERS.get(value.type.tensor_type.elem_type)
        form = None
        if dtype is not None:
            if isinstance(network, QuantizedNetwork) and network.activation_dtype == dtype:
                form = network.input_format if side == "input" else network.formats[-1]
            if form is None:
                raise ValueError(f"the ONNX model's {value.name!r} is {dtype}, and the model has no such {side}")
        forms[side] = form
    return Ends(forms["input"], forms["output"], getattr(network, "activation_dtype", ""))
