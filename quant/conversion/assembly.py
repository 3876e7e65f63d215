"""From steps to the layers of a quantized network: what has which scale is decided here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.activations import CUSTOM
from nbdense.engine.tables import DENSE
from nbdense.network import Row
from nbdense.quant.calibration.calibration import is_bare
from nbdense.quant.conversion.activations import (
    FIXED_OUTPUTS,
    Parameters,
    activation_parameters,
    activation_table,
    exponentials,
    table_parameters,
)
from nbdense.quant.conversion.bias_correction import Carried
from nbdense.quant.conversion.plan import SOFTMAX, SUM, Step
from nbdense.quant.conversion.quantizer import Quantizer
from nbdense.quant.model.checks import INT32_MAX
from nbdense.quant.model.network import (
    LIMITS,
    DynamicDense,
    FloatLayer,
    QuantizedActivation,
    QuantizedAdd,
    QuantizedDense,
    QuantizedFlatten,
    QuantizedLayer,
    QuantizedNetwork,
    QuantizedSoftmax,
    WeightOnlyDense,
    between,
    cuts,
)


@dataclass(frozen=True)
class Choice:
    """What becomes of one step's weights.

    Attributes
    ----------
    bits : int
        Of its weights; 0: it stays in float.
    why : str
        For the report; empty where it is as asked.
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
        Of steps that are to be otherwise than the options say.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # QuantizedNetwork refuses what comes of it
        return Assembly(quantizer, choices).result()


@dataclass
class Assembly:
    """Makes the layers of one quantized network, step by step.

    Attributes
    ----------
    quantizer : Quantizer
        Whose steps, ranges and weights these are.
    choices : mapping of int to Choice
        Of steps that are to be otherwise than the options say.
    """

    quantizer: Quantizer
    choices: Mapping[int, Choice]
    layers: list[QuantizedLayer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.options = self.quantizer.options
        self.dtype = self.options.activation_dtype
        static = self.options.scheme == "static"
        bounds = self.quantizer.ranges.input if static and self.quantizer.ranges else (0.0, 0.0)
        # By tensor of the plan: that of the network, and the integers in which it is read.
        self.tensor = [0]
        self.formats: list[Parameters] = [activation_parameters(bounds, self.dtype, self.options.symmetric)]
        self.final = "linear"
        self.cuts = cuts([step.inputs for step in self.quantizer.steps])
        self.carried = Carried(self.quantizer.source, self.quantizer.calibration)

    def result(self) -> QuantizedNetwork:
        """The network of all steps."""
        steps = self.quantizer.steps
        for number, step in enumerate(steps):
            bits = self.choices[number].bits if number in self.choices else self.options.bits
            last = number == len(steps) - 1
            if self.options.scheme == "static":
                self._static(step, bits, last)
            elif step.row.kind == DENSE and bits:
                self._float_weights(step, bits)
            else:
                self._float(step)
            self.tensor.append(len(self.layers))
        return self._network(0, len(self.layers))

    def _network(self, start: int, tensor: int) -> QuantizedNetwork:
        shape = self.quantizer.source.input_shape if start == 0 else ()
        return QuantizedNetwork(
            between(self.layers, start, tensor), self.dtype, self.options.rounding, self.final, shape
        )

    def _common(self, step: Step) -> dict[str, Any]:
        inputs = tuple(self.tensor[source] for source in step.inputs)
        return {
            "name": step.row.name,
            "inputs": None if inputs == (len(self.layers),) else inputs,
            "positions": step.row.positions,
        }

    def _parameters(self, bounds: Any) -> Parameters:
        return activation_parameters(bounds, self.dtype, self.options.symmetric)

    # -- integers --

    def _static(self, step: Step, bits: int, last: bool) -> None:
        what, name = step.what, step.row.activation.name
        if what in ("batch_norm", "layer_norm") or (what == "dense" and not bits):
            self._float(step)
            self.formats.append(self._parameters(step.output))
        elif what == "flatten":
            scale, zero_point = self.formats[step.inputs[0]]
            layer = QuantizedFlatten(n=step.row.n_in, scale=scale, zero_point=zero_point, **self._common(step))
            self.layers.append(layer)
            self.formats.append((scale, zero_point))
        elif what == "dense":
            self.formats.append(self._dense(step, bits, last))
        elif name == "softmax":
            self.formats.append(self._softmax(step, self.formats[step.inputs[0]], last, self._common(step)))
        elif what == "activation":
            self.formats.append(self._activation(step))
        else:
            self.formats.append(self._add(step))

    def _dense(self, step: Step, bits: int, last: bool) -> Parameters:
        """Returns the format of the output."""
        row, name = step.row, step.row.activation.name
        given = self.formats[step.inputs[0]]
        table = None
        softmax = name == "softmax"
        if softmax or not is_bare(row.activation):
            before = after = self._parameters(step.pre)
        else:
            settled = self.quantizer.trained is not None
            before, after = table_parameters(row, step.pre, step.output, self.dtype, self.options.symmetric, settled)
            table = activation_table(row, before, after, self.dtype)
        kernel, scales = self.quantizer.weights(step, given[0], bits)
        dequantized = kernel.astype(np.float32) * scales
        bias = self.quantizer.bias(step, dequantized, self._inputs(step, given))
        steps = np.zeros(row.n_out) if bias is None else bias / (np.float32(given[0]) * scales)
        if not np.abs(steps).max() <= INT32_MAX:
            raise ValueError(
                f"{row.label}: the scales of its input and weights are too far apart for float32, or its bias "
                "too large for them"
            )
        common = self._common(step)
        self.layers.append(
            QuantizedDense(
                kernel=kernel,
                kernel_scales=scales,
                bias=np.rint(steps).astype(np.int32),
                input_scale=given[0],
                input_zero_point=given[1],
                output_scale=after[0],
                output_zero_point=after[1],
                pre_scale=before[0],
                pre_zero_point=before[1],
                activation="linear" if softmax else name,
                table=table,
                granularity=self.options.granularity,
                alpha=row.alpha,
                bits=bits,
                **common,
            )
        )
        if not softmax:
            return after
        common = {"name": f"{row.name}{SOFTMAX}", "inputs": None, "positions": row.positions}
        return self._softmax(step, after, last, common)

    def _softmax(self, step: Step, given: Parameters, last: bool, common: dict[str, Any]) -> Parameters:
        if last and self.options.softmax == "float" and (step.row.kind == DENSE or common["inputs"] is None):
            self.final = "softmax"
            return given
        low = LIMITS[self.dtype][0]
        self.layers.append(
            QuantizedSoftmax(
                n=step.row.n_out,
                input_scale=given[0],
                input_zero_point=given[1],
                output_zero_point=low,
                exponentials=exponentials(given[0]),
                **common,
            )
        )
        return QuantizedSoftmax.output_scale, low

    def _activation(self, step: Step) -> Parameters:
        row = step.row
        before = self.formats[step.inputs[0]]
        fixed = FIXED_OUTPUTS.get(row.activation.name)
        after = (fixed[0], fixed[1][self.dtype]) if fixed else self._parameters(step.output)
        self.layers.append(
            QuantizedActivation(
                n=row.n_in,
                input_scale=before[0],
                input_zero_point=before[1],
                output_scale=after[0],
                output_zero_point=after[1],
                table=activation_table(row, before, after, self.dtype),
                activation=row.activation.name,
                alpha=row.alpha,
                **self._common(step),
            )
        )
        return after

    def _add(self, step: Step) -> Parameters:
        first, second = (self.formats[source] for source in step.inputs)
        after = self._parameters(step.output)
        self.layers.append(
            QuantizedAdd(
                n=step.row.n_in,
                input_scales=(first[0], second[0]),
                input_zero_points=(first[1], second[1]),
                output_scale=after[0],
                output_zero_point=after[1],
                activation=step.row.activation.name,
                alpha=step.row.alpha,
                **self._common(step),
            )
        )
        return after

    def _inputs(self, step: Step, given: Parameters | None) -> Iterator[npt.NDArray[Any]]:
        """Yield a step's input as the layers before it give it and it reads it, batch by batch."""
        tensor = self.tensor[step.inputs[0]]
        for values in self.carried.at(tensor, self._network, step.inputs[0] in self.cuts):
            if given is None:
                yield values
            else:
                scale, zero_point = np.float32(given[0]), given[1]
                low, high = LIMITS[self.dtype]
                yield (np.clip(np.rint(values / scale) + zero_point, low, high) - zero_point) * scale

    # -- float --

    def _float_weights(self, step: Step, bits: int) -> None:
        """Integers in store, or multiplied with what a call brings; the rest in float."""
        row, options = step.row, self.options
        kernel, scales = self.quantizer.weights(step, None, bits)
        common = {
            "kernel": kernel,
            "activation": row.activation.name,
            "alpha": row.alpha,
            "bits": bits,
            "custom": row.activation if row.activation.code >= CUSTOM else None,
            **self._common(step),
        }
        layer: DynamicDense | WeightOnlyDense
        if options.scheme == "dynamic":
            layer = DynamicDense(kernel_scales=scales, granularity=options.granularity, **common)
        else:
            table = scales if options.blocks else scales[np.newaxis]
            layer = WeightOnlyDense(kernel_scales=table, block_size=options.blocks or 0, **common)
        bias = self.quantizer.bias(step, layer.dequantized(), self._inputs(step, None))
        if bias is not None:
            object.__setattr__(layer, "bias", _float32(bias, row, "bias"))
        self.layers.append(layer)

    def _float(self, step: Step) -> None:
        row = step.row
        tensors: dict[str, npt.NDArray[Any] | None] = {}
        if step.what == "dense":
            tensors = {"kernel": row.kernel, "bias": row.bias}
        elif step.what in ("batch_norm", "layer_norm"):
            tensors = {"gamma": row.kernel if row.kernel.size else None, "beta": row.bias}
        if step.what == "batch_norm":
            tensors |= {"mean": row.mean, "variance": row.variance}
        settings: dict[str, Any] = {
            "activation": row.activation.name,
            "alpha": row.alpha,
            "custom": row.activation if row.activation.code >= CUSTOM else None,
        }
        common = self._common(step)
        if step.what == "add" and row.activation.name != "linear":
            self.layers.append(FloatLayer(what="add", n=row.n_in, **{**common, "name": f"{row.name}{SUM}"}))
            self.layers.append(FloatLayer(row.name, "activation", row.n_in, positions=row.positions, **settings))
            return
        held = {name: _float32(value, row, name) for name, value in tensors.items() if value is not None}
        self.layers.append(FloatLayer(what=step.what, n=row.n_in, tensors=held, **settings, **common))


def _float32(value: npt.NDArray[Any], row: Row, what: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(value, np.float32)
    if not np.isfinite(converted).all():
        raise ValueError(f"{row.label}: its {what} holds a number that is too large for float32")
    return converted
