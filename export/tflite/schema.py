"""Numbers of TFLite's schema (schema.fbs, version 3) that dense networks need, and a model as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

IDENTIFIER, VERSION = b"TFL3", 3

# Codes of element types, and those of the options' fields below.
TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int8": 9}

# Fused activations.
NONE, RELU, RELU_N1_TO_1, RELU6 = range(4)


class Kind(NamedTuple):
    """A kind of operator: its code, the type of its options in their union, and the options' fields, by slot.

    A field is (name, type), where a type is that of `flatbuffer`'s slots.
    """

    code: int
    options: int = 0
    fields: tuple[tuple[str, str], ...] = ()


_FUSED = (("fused", "Int8"),)
KINDS = {
    "ADD": Kind(0, 11, _FUSED),
    "DEQUANTIZE": Kind(6, 38),
    "FULLY_CONNECTED": Kind(9, 8, (*_FUSED, ("weights_format", "Int8"), ("keep_num_dims", "Bool"))),
    "LOGISTIC": Kind(14),
    "MUL": Kind(18, 21, _FUSED),
    "RELU": Kind(19),
    "RELU_N1_TO_1": Kind(20),
    "RELU6": Kind(21),
    "RESHAPE": Kind(22, 17),
    "SOFTMAX": Kind(25, 9, (("beta", "Float32"),)),
    "TANH": Kind(28),
    "GATHER": Kind(36, 23, (("axis", "Int32"),)),
    "MEAN": Kind(40, 27, (("keep_dims", "Bool"),)),
    "SUB": Kind(41, 28, _FUSED),
    "DIV": Kind(42, 29, _FUSED),
    "EXP": Kind(47, 33),
    "LOG_SOFTMAX": Kind(50, 36),
    "CAST": Kind(53, 37, (("from", "Int8"), ("to", "Int8"))),
    "MAXIMUM": Kind(55, 39),
    "MINIMUM": Kind(57, 39),
    "NEG": Kind(59, 42),
    "GREATER": Kind(61, 44),
    "LOG": Kind(73),
    "SQRT": Kind(75),
    "LEAKY_RELU": Kind(98, 75, (("alpha", "Float32"),)),
    "ABS": Kind(101, 78),
    "ELU": Kind(111),
    "QUANTIZE": Kind(114, 89),
    "HARD_SWISH": Kind(117, 91),
    "SELECT_V2": Kind(123, 98),
    "GELU": Kind(150, 116, (("approximate", "Bool"),)),
}
KIND_NAMES = {kind.code: name for name, kind in KINDS.items()}
FUSES = {"FULLY_CONNECTED", "ADD", "MUL", "SUB", "DIV"}  # an activation behind them is a field of theirs
# Of operators on int8, and of what has options that the first version lacks: from which version they are known.
INT8_VERSIONS = {"FULLY_CONNECTED": 4, "QUANTIZE": 1, "CAST": 1, "RESHAPE": 1, "HARD_SWISH": 1}
KEEP_DIMS_VERSION, PER_CHANNEL_VERSION, OTHER_INT8_VERSION = 5, 12, 2


@dataclass(frozen=True)
class Quantization:
    """Scales and zero points of a tensor of integers: one, or one for each index of an axis."""

    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int = 0


@dataclass
class Tensor:
    """A tensor: one that is made, or with ``data`` a constant.

    The shape is that of a batch of 1; ``first_is_batch`` says that the first dimension grows with it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: npt.NDArray[Any] | None = None
    quantization: Quantization | None = None
    first_is_batch: bool = False


@dataclass
class Operator:
    """An operator: its kind by name, the tensors that it reads and the one that it makes, and its options by field."""

    kind: str
    inputs: list[str]
    output: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class TfliteModel:
    """A model: tensors by name, operators in the order in which they run, and its ends."""

    tensors: dict[str, Tensor]
    operators: list[Operator]
    input: str
    output: str

    def version(self, operator: Operator) -> int:
        """Return the version of an operator that a runtime needs.

        Parameters
        ----------
        operator : Operator
            One of the model's.
        """
        tensors = [self.tensors[name] for name in (*operator.inputs, operator.output)]
        version = 1
        if any(tensor.dtype == "int8" for tensor in tensors):
            version = INT8_VERSIONS.get(operator.kind, OTHER_INT8_VERSION)
        if operator.kind == "FULLY_CONNECTED":
            scales = tensors[1].quantization
            if operator.options.get("keep_num_dims"):
                version = max(version, KEEP_DIMS_VERSION)
            if scales is not None and len(scales.scales) > 1:
                version = PER_CHANNEL_VERSION
        return version
