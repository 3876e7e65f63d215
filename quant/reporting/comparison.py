"""compare(): a quantized model beside the float one, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._tables import Shown, Table
from nbdense.network import Network, held_network
from nbdense.quant.calibration.calibration import RowValues, walk
from nbdense.quant.calibration.trained import trained_ranges
from nbdense.quant.conversion.equalization import equalize
from nbdense.quant.conversion.plan import plan, source_of
from nbdense.quant.layers.checks import LIMITS
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import QuantizedNetwork, between, cuts
from nbdense.quant.schemes.scheme import SOFTMAX, SUM, Step

Matrix = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerComparison:
    """One layer's output in a quantized model and in the float one.

    Attributes
    ----------
    name : str
        The layer's.
    sqnr_db : float
        Signal-to-quantization-noise ratio in decibels: 10 log10(sum of squares / sum of squared differences);
        infinite where nothing differs.
    added_db : float
        Decibels by which it is below that of the layer's input: what this layer added.
    max_difference : float
        The largest absolute difference.
    saturated : float
        The share of the float values that lie outside the range of the integers; 0 of a float layer.
    """

    name: str
    sqnr_db: float
    added_db: float
    max_difference: float
    saturated: float


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """The differences between a quantized model and the float one; shown, they are a table.

    Attributes
    ----------
    layers : list of LayerComparison
        Layers, in the order in which they run.
    worst : str
        The name of the layer that added the most noise.
    """

    layers: list[LayerComparison]
    worst: str

    def to_table(self) -> Table:
        rows = [
            (r.name, f"{r.sqnr_db:.1f}", f"{r.added_db:.1f}", f"{r.max_difference:.3g}", f"{r.saturated:.2%}")
            for r in self.layers
        ]
        head = ("layer", "SQNR dB", "lost dB", "max diff", "saturated")
        return Table(head, rows, notes=[f"most is lost in {self.worst!r}"])


def compare(model: Any, q: Any, x: Any) -> Comparison:
    """Find the layer where a quantized model parts from the float one.

    Parameters
    ----------
    model : Sequential or Network
        The float model that ``q`` was made of.
    q : QuantizedModel or QuantizedNetwork
        What `quantize` gave.
    x : array-like, (rows, *input_shape)
        Rows to compare on.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        If the models do not belong together, or ``x`` is unfit.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> from nbdense.quant import quantize
    >>> model = Sequential([Input((4,)), Dense(8, activation="relu"), Dense(3, activation="softmax")])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> [layer.name for layer in compare(model, quantize(model, x), x).layers]
    ['dense', 'dense_1']
    """
    network, quantized = source_of(model), held_network(q)
    if not isinstance(network, Network):
        raise TypeError(f"compare: model must be a float model, got {type(model).__name__}")
    if not isinstance(quantized, QuantizedNetwork):
        raise TypeError(f"compare: q must be a quantized model, got {type(q).__name__}")
    trained = trained_ranges(network)
    if trained is not None:
        network = trained.network
    if quantized.report.get("options", {}).get("equalize"):
        network = equalize(network)
    if (network.input_shape, network.output_shape) != (quantized.input_shape, quantized.output_shape):
        raise ValueError(
            f"compare: q is of shapes {quantized.input_shape} to {quantized.output_shape}, the model of "
            f"{network.input_shape} to {network.output_shape}; give the model that q was made of"
        )
    rows = _checks.rows("x", x, network.input_shape, network.first_label)
    if len(rows) == 0:
        raise ValueError("compare: x has no rows")
    return compare_tensors(
        network, plan(network, settled=trained is not None), quantized, [rows.reshape(-1, *network.input_shape)]
    )


def compare_tensors(network: Network, steps: Sequence[Step], quantized: QuantizedNetwork, data: Any) -> Comparison:
    """Compare a quantized network with a float one whose steps are known: see `compare`.

    Parameters
    ----------
    network : Network
        The float network.
    steps : sequence of Step
        Its plan.
    quantized : QuantizedNetwork
        What was made of the steps.
    data : batches
        See `nbdense.quant.calibration.calibration.batches`.
    """
    by_name = {step.row.name: step for step in steps}
    ends = cuts([quantized.inputs_of(i) for i in range(len(quantized.layers))])
    parts = _parts(quantized, ends)
    sums = np.zeros((len(quantized.layers), 2))
    largest, outside, counts = (np.zeros(len(quantized.layers)) for _ in range(3))
    input_sums = np.zeros(2)
    for x, values in walk(network, data):
        shaped = np.ascontiguousarray(x, np.float32).reshape(-1, *quantized.input_shape)
        input_sums += _input_noise(quantized, shaped)
        source = shaped  # the last tensor that all layers to come go through
        for i, (layer, part) in enumerate(zip(quantized.layers, parts, strict=True)):
            expected = _float_values(layer, by_name, values).astype(np.float64)
            seen = part.predict(source.reshape(-1, *part.network.input_shape))
            if expected.size != seen.size:
                raise ValueError(
                    f"compare: layer {layer.name!r} puts out {expected.size // len(shaped)} numbers a row in the model "
                    f"and {seen.size // len(shaped)} in q; give the model that q was made of"
                )
            source = seen if i + 1 in ends else source
            difference = np.abs(expected - seen.reshape(expected.shape))
            sums[i] += np.square(expected).sum(), np.square(difference).sum()
            largest[i] = max(largest[i], float(difference.max(initial=0.0)))
            outside[i] += _outside(expected, quantized.formats[i + 1], quantized.activation_dtype)
            counts[i] += expected.size
    ratios = [decibels(*input_sums), *(decibels(*pair) for pair in sums)]
    layers = []
    for i, layer in enumerate(quantized.layers):
        input_db = min(ratios[tensor] for tensor in quantized.inputs_of(i))
        added = 0.0 if ratios[i + 1] == np.inf else min(input_db, 200.0) - ratios[i + 1]
        layers.append(
            LayerComparison(layer.name, ratios[i + 1], added, float(largest[i]), float(outside[i] / max(counts[i], 1)))
        )
    return Comparison(layers, max(layers, key=lambda layer: layer.added_db).name)


def _parts(network: QuantizedNetwork, ends: set[int]) -> list[QuantizedModel]:
    """Return, for each layer, the model that makes its output of the last of the cuts before it."""
    parts, start = [], 0
    for tensor in range(1, len(network.layers) + 1):
        shape = network.input_shape if start == 0 else ()
        layers = between(network.layers, start, tensor)
        parts.append(
            QuantizedModel(QuantizedNetwork(layers, network.activation_dtype, network.rounding, input_shape=shape))
        )
        start = tensor if tensor in ends else start
    return parts


def _float_values(layer: Any, steps: Mapping[str, Step], values: Sequence[RowValues]) -> Matrix:
    """Return the float network's values where a quantized layer has its output."""
    step = steps.get(layer.name)
    if step is None:
        step = steps.get(layer.name.removesuffix(SOFTMAX).removesuffix(SUM))
        if step is None:
            raise ValueError(f"compare: the float model has no layer {layer.name!r}")
        return values[step.row.index if layer.name.endswith(SUM) else step.last].output
    if layer.kind == "dense" and step.row.activation.rowwise:  # logits
        return values[step.last].pre
    return values[step.last].output


def _input_noise(network: QuantizedNetwork, x: Matrix) -> Matrix:
    """Sum the squares of the input, and of what quantizing it changes."""
    readers = [i for i in range(len(network.layers)) if 0 in network.inputs_of(i)]
    form = network.layers[readers[0]].input_formats[0] if readers else None
    if form is None:
        return np.array([np.square(x, dtype=np.float64).sum(), 0.0])
    (scale, zero_point), (low, high) = form, LIMITS[network.activation_dtype]
    seen = (np.clip(np.rint(x / np.float32(scale)) + zero_point, low, high) - zero_point) * scale
    return np.array([np.square(x, dtype=np.float64).sum(), np.square(seen - x, dtype=np.float64).sum()])


def _outside(values: Matrix, form: Any, dtype: str) -> int:
    if form is None:
        return 0
    (scale, zero_point), (low, high) = form, LIMITS[dtype]
    return int(((values < (low - zero_point - 0.5) * scale) | (values > (high - zero_point + 0.5) * scale)).sum())


def decibels(signal: float, noise: float) -> float:
    """Return a ratio in decibels: infinite where there is no noise, minus infinity where there is nothing else.

    Parameters
    ----------
    signal, noise : float
        Sums of squares.
    """
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal > 0 else -np.inf
