"""From steps to the layers of a quantized network, by the scheme that was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.quant.conversion.bias_correction import Carried
from nbdense.quant.conversion.quantizer import Quantizer
from nbdense.quant.layers.activations import Parameters, activation_parameters
from nbdense.quant.layers.base import Layer
from nbdense.quant.layers.checks import LIMITS
from nbdense.quant.model.network import QuantizedNetwork, between, cuts
from nbdense.quant.schemes.scheme import Step


@dataclass(frozen=True)
class Choice:
    """The bits of one step's weights, and why they are so many.

    Attributes
    ----------
    bits : int
        Bits of its weights; 0: it stays in float.
    why : str
        Reason, for the report; empty where it is as asked.
    """

    bits: int
    why: str = ""


def assemble(quantizer: Quantizer, choices: Mapping[int, Choice]) -> QuantizedNetwork:
    """Make a quantized network.

    Parameters
    ----------
    quantizer : Quantizer
        Whose steps, ranges and weights these are.
    choices : mapping of int to Choice
        Choices for steps that are to be otherwise than the options say.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # QuantizedNetwork refuses what comes of it
        return Assembly(quantizer, choices).result()


class Assembly:
    """The layers of one quantized network, put together step by step: the `Conversion` that its scheme sees.

    Parameters
    ----------
    quantizer : Quantizer
        Whose steps, ranges and weights these are.
    choices : mapping of int to Choice
        Choices for steps that are to be otherwise than the options say.
    """

    def __init__(self, quantizer: Quantizer, choices: Mapping[int, Choice]) -> None:
        self.options, self.settled = quantizer.options, quantizer.trained is not None
        self._quantizer, self._choices = quantizer, choices
        self._layers: list[Layer] = []
        # By tensor of the plan: that of the network, and the integers in which it is read.
        self._tensors = [0]
        bounds = quantizer.ranges.input if quantizer.ranges else (0.0, 0.0)
        self._formats: list[Parameters | None] = [
            activation_parameters(bounds, self.options.activation_dtype, self.options.symmetric)
        ]
        self._final = "linear"
        self._cuts = cuts([step.inputs for step in quantizer.steps])
        self._carried = Carried(quantizer.source, quantizer.calibration)

    def result(self) -> QuantizedNetwork:
        """Return the network of all steps."""
        steps = self._quantizer.steps
        for number, step in enumerate(steps):
            bits = self._choices[number].bits if number in self._choices else self.options.bits
            converted = self._quantizer.scheme.convert(self, step, bits, number == len(steps) - 1)
            self._layers += converted.layers
            self._formats.append(converted.form)
            self._tensors.append(len(self._layers))
            self._final = converted.final
        return self._network(0, len(self._layers))

    def place(self, step: Step) -> dict[str, Any]:
        """Return a layer's name, inputs and positions.

        Parameters
        ----------
        step : Step
            The step that becomes the layer.
        """
        inputs = tuple(self._tensors[source] for source in step.inputs)
        return {
            "name": step.row.name,
            "inputs": None if inputs == (len(self._layers),) else inputs,
            "positions": step.row.positions,
        }

    def format_of(self, tensor: int) -> Parameters:
        """Return scale and zero point with which steps read a tensor.

        Parameters
        ----------
        tensor : int
            Number of a tensor of the plan.
        """
        form = self._formats[tensor]
        assert form is not None
        return form

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
        return self._quantizer.weights(step, input_scale, bits)

    def bias(
        self, step: Step, dequantized: npt.NDArray[np.float32], form: Parameters | None
    ) -> npt.NDArray[np.float64] | None:
        """Return a dense step's bias, corrected if that was asked for; None where there is none.

        Parameters
        ----------
        step : Step
            A dense one.
        dequantized : ndarray of float32, (n_in, n_out)
            Its kernel as it will be.
        form : (float, int), optional
            Scale and zero point with which it reads its input; None: as floats.
        """
        return self._quantizer.bias(step, dequantized, self._inputs(step, form))

    def _network(self, start: int, tensor: int) -> QuantizedNetwork:
        shape = self._quantizer.source.input_shape if start == 0 else ()
        layers = between(self._layers, start, tensor)
        return QuantizedNetwork(layers, self.options.activation_dtype, self.options.rounding, self._final, shape)

    def _inputs(self, step: Step, form: Parameters | None) -> Iterator[npt.NDArray[Any]]:
        """Yield a step's input as the layers before it give it and it reads it, batch by batch."""
        tensor = self._tensors[step.inputs[0]]
        for values in self._carried.at(tensor, self._network, step.inputs[0] in self._cuts):
            if form is None:
                yield values
            else:
                scale, zero_point = np.float32(form[0]), form[1]
                low, high = LIMITS[self.options.activation_dtype]
                yield (np.clip(np.rint(values / scale) + zero_point, low, high) - zero_point) * scale
