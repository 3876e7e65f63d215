"""What quantization did to a model: layer by layer, as numbers, text and plots."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.network import Network
from nbdense.quant.calibration.calibration import RowValues, batches, walk
from nbdense.quant.conversion.equalization import equalize
from nbdense.quant.conversion.plan import SOFTMAX, SUM, Step, plan, source_of
from nbdense.quant.model.checks import LIMITS
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import (
    DynamicDense,
    FloatLayer,
    QuantizedDense,
    QuantizedNetwork,
    WeightOnlyDense,
    between,
    cuts,
)
from nbdense.quant.training.trained import trained_ranges

if TYPE_CHECKING:
    from nbdense.quant.quantization import Quantizer

ROWS = 512  # of the calibration data, on which tensors are compared
_SECONDS = 0.05  # that a timing takes, at least

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
        By how much it is below that of the layer's input: what this layer added.
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


@dataclass(frozen=True)
class Comparison:
    """Where a quantized model and the float one part.

    Attributes
    ----------
    layers : list of LayerComparison
        In the order in which they run.
    worst : str
        The name of the layer that added the most noise.
    """

    layers: list[LayerComparison]
    worst: str

    def __str__(self) -> str:
        rows = [("layer", "SQNR dB", "lost dB", "max diff", "saturated")]
        rows += [
            (r.name, f"{r.sqnr_db:.1f}", f"{r.added_db:.1f}", f"{r.max_difference:.3g}", f"{r.saturated:.2%}")
            for r in self.layers
        ]
        return f"{_table(rows)}\nmost is lost in {self.worst!r}"


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
    network, quantized = source_of(model), getattr(q, "network", q)
    if not isinstance(network, Network):
        raise TypeError(f"compare: model must be a float model, got {type(model).__name__}")
    if not isinstance(quantized, QuantizedNetwork):
        raise TypeError(f"compare: q must be what quantize gave, got {type(q).__name__}")
    trained = trained_ranges(network)
    if trained is not None:
        network = trained.network
    if quantized.report.get("options", {}).get("equalize"):
        network = equalize(network)
    rows = _checks.rows("x", x, network.input_shape, network.first_label)
    return compare_tensors(
        network, plan(network, settled=trained is not None), quantized, [rows.reshape(-1, *network.input_shape)]
    )


def compare_tensors(network: Network, steps: Sequence[Step], quantized: QuantizedNetwork, data: Any) -> Comparison:
    """As `compare`, of a network whose steps are known.

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
    given = np.zeros(2)
    for x, values in walk(network, data):
        shaped = np.ascontiguousarray(x, np.float32).reshape(-1, *quantized.input_shape)
        given += _input_noise(quantized, shaped)
        source = shaped  # the last tensor that all layers to come go through
        for i, (layer, part) in enumerate(zip(quantized.layers, parts, strict=True)):
            expected = _float_values(layer, by_name, values).astype(np.float64)
            seen = part.predict(source.reshape(-1, *part.network.input_shape))
            source = seen if i + 1 in ends else source
            difference = np.abs(expected - seen.reshape(expected.shape))
            sums[i] += np.square(expected).sum(), np.square(difference).sum()
            largest[i] = max(largest[i], float(difference.max(initial=0.0)))
            outside[i] += _outside(expected, quantized.formats[i + 1], quantized.activation_dtype)
            counts[i] += expected.size
    ratios = [_decibels(*given), *(_decibels(*pair) for pair in sums)]
    layers = []
    for i, layer in enumerate(quantized.layers):
        before = min(ratios[tensor] for tensor in quantized.inputs_of(i))
        added = 0.0 if ratios[i + 1] == np.inf else min(before, 200.0) - ratios[i + 1]
        layers.append(
            LayerComparison(layer.name, ratios[i + 1], added, float(largest[i]), float(outside[i] / max(counts[i], 1)))
        )
    return Comparison(layers, max(layers, key=lambda layer: layer.added_db).name)


def _parts(network: QuantizedNetwork, ends: set[int]) -> list[QuantizedModel]:
    """Return, for each layer, what makes its output of the last of the cuts before it."""
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
    """What the float network has where a quantized layer has its output."""
    step = steps.get(layer.name)
    if step is None:
        step = steps.get(layer.name.removesuffix(SOFTMAX).removesuffix(SUM))
        if step is None:
            raise ValueError(f"compare: the float model has no layer {layer.name!r}")
        return values[step.row.index if layer.name.endswith(SUM) else step.last].output
    if layer.kind == "dense" and step.row.activation.name == "softmax":  # logits
        return values[step.last].pre
    return values[step.last].output


def _input_noise(network: QuantizedNetwork, x: Matrix) -> Matrix:
    """Sums of squares of the input, and of what quantizing it changes."""
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


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal > 0 else -np.inf


def with_findings(network: QuantizedNetwork, quantizer: Quantizer, findings: Mapping[str, Any]) -> QuantizedNetwork:
    """The network with its report: see `QuantizedModel.report`.

    Parameters
    ----------
    network : QuantizedNetwork
        What was made.
    quantizer : Quantizer
        What made it.
    findings : mapping
        Of the search for a budget; empty where there was none.
    """
    steps = {step.row.name: step for step in quantizer.steps}
    compared: dict[str, LayerComparison] = {}
    if quantizer.calibration is not None:
        first = next(iter(batches(quantizer.calibration, quantizer.source)))[:ROWS]
        rows = [first.reshape(-1, *quantizer.source.input_shape)]
        seen = compare_tensors(quantizer.source, quantizer.steps, network, rows)
        compared = {layer.name: layer for layer in seen.layers}
    sizes = network.layer_bytes()
    why = findings.get("layers", {})
    layers = []
    for layer, size in zip(network.layers, sizes, strict=True):
        step, form = steps.get(layer.name), layer.output_format
        bits = getattr(layer, "bits", None)
        entry: dict[str, Any] = {
            "name": layer.name,
            "kind": f"float {layer.what}" if isinstance(layer, FloatLayer) else layer.kind.replace("_", " "),
            "weight_bits": bits if bits is not None else (32 if getattr(layer, "what", "") == "dense" else None),
            "bytes": size,
            "multiply_adds": _multiply_adds(layer),
        }
        if quantizer.ranges is not None and step is not None:
            entry["range"] = [float(bound) for bound in step.output]
        if form is not None:
            entry |= {"output_scale": form[0], "output_zero_point": form[1]}
        if step is not None and isinstance(layer, QuantizedDense | DynamicDense | WeightOnlyDense):
            entry["weight_sqnr_db"] = _json(_weight_sqnr(step.row.kernel, layer.dequantized()))
        if layer.name in compared:
            found = compared[layer.name]
            entry |= {"activation_sqnr_db": _json(found.sqnr_db), "saturated": found.saturated}
        layers.append({**entry, **why.get(layer.name, {})})
    source = quantizer.source
    totals = {
        "bytes": sum(sizes),
        "float_bytes": 4 * sum(int(np.prod(parameter.shape)) for parameter in source.parameters),
        "peak_activation_bytes": network.peak_activation_bytes(),
        "multiply_adds": sum(entry["multiply_adds"] for entry in layers),
        **({"metric": findings["metric"]} if "metric" in findings else {}),
    }
    report = {"options": quantizer.options.to_config(), "layers": layers, "model": totals}
    return dataclasses.replace(network, report=report)


def _multiply_adds(layer: Any) -> int:
    dense = hasattr(layer, "kernel") or getattr(layer, "what", "") == "dense"
    return int(layer.positions * layer.n_in * layer.n_out) if dense else 0


def _weight_sqnr(kernel: Matrix, dequantized: Matrix) -> float:
    exact = kernel.astype(np.float64)
    return _decibels(float(np.square(exact).sum()), float(np.square(exact - dequantized).sum()))


def _json(value: float) -> float | None:
    """None for infinities, which JSON lacks."""
    return float(value) if np.isfinite(value) else None


def microseconds_a_row(predict: Callable[[Matrix], Any], shape: tuple[int, ...], rows: int) -> float:
    """Measured: the median of calls that take rows of zeros.

    Parameters
    ----------
    predict : callable
        Takes float32 rows.
    shape : tuple of int
        Of one row.
    rows : int
        How many a call takes.
    """
    x = np.zeros((rows, *shape), np.float32)
    predict(x)  # compiles
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < 3:
        started = time.perf_counter()
        predict(x)
        times.append(time.perf_counter() - started)
    return 1e6 * float(np.median(times)) / rows


def text(report: Mapping[str, Any]) -> str:
    """The report as a table, and a few lines about the model.

    Parameters
    ----------
    report : mapping
        As `QuantizedModel.report` gives it.
    """
    rows = [("layer", "kind", "bits", "range", "weights dB", "outputs dB", "saturated", "bytes")]
    notes = []
    for entry in report["layers"]:
        bounds = entry.get("range")
        rows.append(
            (
                entry["name"],
                entry["kind"],
                _cell(entry["weight_bits"]),
                "" if bounds is None else f"{bounds[0]:.4g} .. {bounds[1]:.4g}",
                _cell(entry.get("weight_sqnr_db"), ".1f", "weight_sqnr_db" in entry),
                _cell(entry.get("activation_sqnr_db"), ".1f", "activation_sqnr_db" in entry),
                _cell(entry.get("saturated"), ".2%"),
                f"{entry['bytes']:,}",
            )
        )
        if "why" in entry:
            kept = "stays in float" if entry["kind"].startswith("float") else f"has {entry['weight_bits']} bits"
            notes.append(f"{entry['name']!r} {kept}: {entry['why']}")
    model = report["model"]
    notes.append(
        f"{model['bytes']:,} bytes (float32: {model['float_bytes']:,}), at most {model['peak_activation_bytes']:,} of "
        f"activations a row, {model['multiply_adds']:,} multiply-adds a row"
    )
    if "metric" in model:
        metric = model["metric"]
        notes.append(f"score {metric['quantized']:.4f} (float: {metric['float']:.4f}, may lose {metric['budget']:g})")
    for timing in report.get("timings", []):
        beside = f" (float: {timing['float_us']:.3g})" if "float_us" in timing else ""
        notes.append(f"{timing['us']:.3g} microseconds a row at {timing['rows']} rows a call{beside}, measured here")
    return "\n".join([_table(rows), *notes])


def _cell(value: Any, form: str = "", there: bool = False) -> str:
    if value is None:
        return "exact" if there else ""
    return format(value, form)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in ([*zip(row, widths, strict=True)] for row in rows)
    )


def plot(report: Mapping[str, Any]) -> Any:
    """Draw noise, saturation and bytes of each layer, one above the other.

    Parameters
    ----------
    report : mapping
        As `QuantizedModel.report` gives it.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from nbdense.inspection.plots import label_places, pyplot

    figure, axes = pyplot().subplots(3, sharex=True, layout="constrained")
    layers = report["layers"]
    places = np.arange(len(layers))
    for offset, (key, label) in enumerate((("weight_sqnr_db", "weights"), ("activation_sqnr_db", "outputs"))):
        values = [entry.get(key) or 0.0 for entry in layers]
        axes[0].bar(places + 0.4 * offset - 0.2, values, width=0.4, label=label)
    axes[0].set_ylabel("SQNR (dB)")
    axes[0].legend()
    axes[1].bar(places, [100 * entry.get("saturated", 0.0) for entry in layers])
    axes[1].set_ylabel("saturated (%)")
    axes[2].bar(places, [entry["bytes"] for entry in layers])
    axes[2].set_ylabel("bytes")
    label_places(axes[2], [entry["name"] for entry in layers])
    return figure
