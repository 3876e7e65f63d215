"""The dictionary that `QuantizedModel.report` shows: what quantization did to a model, measured layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.quant.calibration.calibration import batches
from nbdense.quant.conversion.quantizer import Quantizer
from nbdense.quant.layers.base import OfKernel
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.reporting.comparison import LayerComparison, compare_tensors, decibels

ROWS = 512  # of the calibration data, on which tensors are compared

Matrix = npt.NDArray[Any]


def with_findings(network: QuantizedNetwork, quantizer: Quantizer, findings: Mapping[str, Any]) -> QuantizedNetwork:
    """Return the network with its report measured: see `QuantizedModel.report`.

    Parameters
    ----------
    network : QuantizedNetwork
        What was made.
    quantizer : Quantizer
        What made it.
    findings : mapping
        Findings of the search for a budget; empty where there was none.
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
        entry: dict[str, Any] = {
            "name": layer.name,
            "kind": layer.title,
            "weight_bits": layer.weight_bits,
            "bytes": size,
            "multiply_adds": layer.multiply_adds,
        }
        if quantizer.ranges is not None and step is not None:
            entry["range"] = [float(bound) for bound in step.output]
        if form is not None:
            entry |= {"output_scale": form[0], "output_zero_point": form[1]}
        if step is not None and isinstance(layer, OfKernel):
            entry["weight_sqnr_db"] = _json(_weight_sqnr(step.row.kernel, layer.dequantized()))
        if layer.name in compared:
            comparison = compared[layer.name]
            entry |= {"activation_sqnr_db": _json(comparison.sqnr_db), "saturated": comparison.saturated}
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


def _weight_sqnr(kernel: Matrix, dequantized: Matrix) -> float:
    exact = kernel.astype(np.float64)
    return decibels(float(np.square(exact).sum()), float(np.square(exact - dequantized).sum()))


def _json(value: float) -> float | None:
    """Return a number for JSON: None for infinities, which it lacks."""
    return float(value) if np.isfinite(value) else None
