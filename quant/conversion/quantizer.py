"""The steps, the ranges and the integers of weights that all quantized networks of one float network share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.network import Network
from nbdense.quant.calibration.calibration import calibrate, check_repeatable
from nbdense.quant.calibration.trained import TrainedRanges, trained_ranges
from nbdense.quant.conversion import bias_correction as correction
from nbdense.quant.conversion.equalization import equalize as equalized
from nbdense.quant.conversion.plan import plan
from nbdense.quant.schemes.options import Options
from nbdense.quant.schemes.scheme import Step
from nbdense.quant.schemes.table import scheme_of
from nbdense.quant.weights import gptq
from nbdense.quant.weights.weights import kernel_integers


class Quantizer:
    """The steps, ranges, weights and biases of quantized networks of one float network: calibration runs once.

    Parameters
    ----------
    network : Network
        The float network, or one with fake quantization.
    calibration : array-like, batches or None
        See `quantize`.
    options : Options
        Options of `quantize`.

    Attributes
    ----------
    scheme : Scheme
        The options' scheme.
    source : Network
        The float network: without fake quantization, equalized if that was asked for.
    steps : list of Step
        Its steps.
    trained : TrainedRanges or None
        What quantization-aware training has settled.
    """

    def __init__(self, network: Network, calibration: Any, options: Options) -> None:
        trained = trained_ranges(network)
        if trained is not None:
            options = _with_trained(options, trained)
            network = trained.network
        self.options, self.calibration, self.scheme = options, calibration, scheme_of(options)
        self.trained = trained
        needing = f"scheme {options.scheme!r}" if self.scheme.calibrates else options.needs_data()
        if needing and calibration is None and (trained is None or options.bias_correction):
            raise ValueError(f"quantize: {needing} needs calibration data")
        if options.equalize:
            network = equalized(network)
        self.source = network
        solves = trained is None and options.solves(calibration is not None)
        calibrates = trained is None and self.scheme.calibrates
        passes = sum((calibrates, solves, options.bias_correction))
        if calibration is not None and passes > 1:
            check_repeatable(calibration, "quantize, with these options,")
        self.ranges = trained.ranges if trained else None
        if calibrates:
            self.ranges = calibrate(network, calibration, options.range_method)
        self.steps = plan(network, self.ranges, settled=trained is not None)
        self._moments: Mapping[int, npt.NDArray[np.float64]] = {}
        if solves:
            self._moments = gptq.input_moments(network, calibration)
        self._integers: dict[tuple[int, float | None, int], tuple[Any, Any]] = {}  # what `weights` has made
        self._means: Mapping[int, npt.NDArray[np.float64]] = {}
        if options.bias_correction:
            self._means = correction.input_means(network, calibration)

    def weights(
        self, step: Step, input_scale: float | None, bits: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return integers and scales of a dense step's kernel.

        Parameters
        ----------
        step : Step
            A dense one.
        input_scale : float, optional
            Scale of its input; None: its bias stays float.
        bits : int
            Bits of the weights.
        """
        key = step.row.index, input_scale, bits
        if key in self._integers:
            return self._integers[key]
        options = self.options
        if bits != options.bits:
            options = replace(options, bits=bits, solver="nearest")
        moments = self._moments.get(step.row.index) if bits == self.options.bits else None
        scales = self.trained.kernel_scales[step.row.index] if self.trained else None
        try:
            made = kernel_integers(step.row.kernel, step.row.bias, input_scale, options, moments, scales)
        except ValueError as error:
            raise ValueError(f"{step.row.label}: {error}") from error
        self._integers[key] = made  # a search for a budget asks again
        return made

    def bias(self, step: Step, dequantized: npt.NDArray[np.float32], inputs: Iterable[npt.NDArray[Any]]) -> Any:
        """Return a dense step's bias in float64, corrected if that was asked for; None where there is none.

        Parameters
        ----------
        step : Step
            A dense one.
        dequantized : ndarray of float32, (n_in, n_out)
            Its kernel as it will be.
        inputs : iterable of ndarray
            Its input in the quantized network, dequantized, batch by batch of the calibration data: for the correction.
        """
        bias = None if step.row.bias is None else step.row.bias.astype(np.float64)
        if not self.options.bias_correction:
            return bias
        mean = correction.Mean(step.row.n_in)
        for values in inputs:
            mean.update(values.reshape(-1, step.row.n_in))
        moved = correction.shift(step.row.kernel, dequantized, self._means[step.row.index], mean.value())
        return (0.0 if bias is None else bias) - moved


def _with_trained(options: Options, trained: TrainedRanges) -> Options:
    """Return the options, changed where training has settled them."""
    settled = {
        name: getattr(trained, name)
        for name in ("bits", "granularity", "activation_dtype", "rounding", "scheme", "symmetric")
    }
    default = Options()
    for name, value in settled.items():
        if getattr(options, name) not in (value, getattr(default, name)):
            raise ValueError(
                f"quantize: {name} must be {value!r}, with which quantize_aware trained, got {getattr(options, name)!r}"
            )
    if options.equalize:
        raise ValueError("quantize: equalize would undo what quantize_aware has trained")
    return replace(options, **settled)
