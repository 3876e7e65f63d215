"""The options of `quantize`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbdense._checks import positive_int
from nbdense.quant.layers.checks import GRANULARITIES, LIMITS, ROUNDINGS, WEIGHT_LIMITS

RANGE_METHODS = ("minmax", "percentile", "mse", "entropy")
SOLVERS = ("auto", "nearest", "gptq")
SOFTMAXES = ("float", "integer")
BLOCK = "block"


@dataclass(frozen=True)
class Options:
    """Everything that `quantize` can be asked for; which scheme takes what, `nbdense.quant.schemes.table` checks.

    Raises
    ------
    ValueError
        For a value that there is not.
    """

    scheme: str = "static"
    bits: int = 8
    granularity: str = "per_channel"
    block_size: int = 32
    range_method: str = "minmax"
    activation_dtype: str = "int8"
    symmetric: bool = False
    softmax: str = "float"
    solver: str = "auto"
    equalize: bool = False
    bias_correction: bool = False
    rounding: str = "onnx"

    def __post_init__(self) -> None:
        for option, available in (
            ("bits", tuple(WEIGHT_LIMITS)),
            ("granularity", (*GRANULARITIES, BLOCK)),
            ("range_method", RANGE_METHODS),
            ("activation_dtype", tuple(LIMITS)),
            ("symmetric", (False, True)),
            ("softmax", SOFTMAXES),
            ("solver", SOLVERS),
            ("equalize", (False, True)),
            ("bias_correction", (False, True)),
            ("rounding", ROUNDINGS),
        ):
            value = getattr(self, option)
            if value not in available:
                raise ValueError(f"quantize: {option} must be {' or '.join(map(repr, available))}, got {value!r}")
        positive_int("quantize", "block_size", self.block_size)

    @property
    def limit(self) -> int:
        """Largest integer of a weight: they lie in [-limit, limit]."""
        return WEIGHT_LIMITS[self.bits]

    @property
    def blocks(self) -> int | None:
        """Number of inputs that share a scale; None: all."""
        return self.block_size if self.granularity == BLOCK else None

    def solves(self, calibrated: bool) -> bool:
        """Tell whether weights are rounded by GPTQ.

        Parameters
        ----------
        calibrated : bool
            Whether there is calibration data.
        """
        return self.solver == "gptq" or (self.solver == "auto" and self.bits == 4 and calibrated)

    def needs_data(self) -> str:
        """Return the option that needs calibration data; empty if none does."""
        if self.solver == "gptq":
            return "solver 'gptq'"
        return "bias_correction" if self.bias_correction else ""

    def to_config(self) -> dict[str, Any]:
        """Return the options in JSON's types."""
        return dict(vars(self))
