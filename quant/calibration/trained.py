"""The plain network behind one with fake quantization, and the ranges and scales that training has settled.

It is the other source of `Ranges` beside calibration data: static quantization reads either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.engine.rows import ACTIVATION, ADD, DENSE, FAKE_QUANT, RESHAPE, kind_of, rows_of
from nbdense.engine.rows.fake_quant import LEAST_FACTOR
from nbdense.engine.tables import sources
from nbdense.layers.fake_quantization import KERNEL_LIMITS
from nbdense.network import Network, Parameter, layer_label
from nbdense.network.builder import NetworkBuilder
from nbdense.quant.calibration.calibration import Ranges
from nbdense.quant.layers.activations import is_clamp
from nbdense.quant.layers.base import Range
from nbdense.quant.layers.checks import GRANULARITIES, LIMITS, ROUNDINGS

# The options that a model is trained for; it holds them, and so do files.
SETTLED = ("scheme", "bits", "granularity", "range_method", "activation_dtype", "rounding")


def range_of(network: Network, row: Any) -> Range:
    """Return the range of a FAKE_QUANT row as it is now, as the engine's `fake_quant.parameters` has it.

    Parameters
    ----------
    network : Network
        The row's.
    row : record of `nbdense.network.LAYER`
        A row of the layer table.

    Returns
    -------
    (float, float)
        float32 numbers.
    """
    factors: tuple[float, ...] = (1.0, 1.0)
    at = FAKE_QUANT.offsets(row).get("factors")
    if at is not None:
        factors = tuple(max(float(factor), LEAST_FACTOR) for factor in network.params[at : at + 2])
    low, high = (
        float(np.float32(FAKE_QUANT.setting(row, end) * factor))
        for end, factor in zip(("low", "high"), factors, strict=True)
    )
    return low, high


@dataclass(frozen=True, eq=False)
class TrainedRanges:
    """Ranges and scales as quantization-aware training has settled them, for `quantize` to take as they are.

    Attributes
    ----------
    network : Network
        The plain float network: without rounding, with the float weights behind the rounded ones.
    ranges : Ranges
        Ranges of the rows of ``network.rows()``. What `activation_parameters` makes of them is what training rounded
        to. Of a row whose activation is a table, ``pre`` needs no cutting any more; a fixed output is as in
        FIXED_OUTPUTS.
    kernel_scales : dict of int to ndarray of float32, (n_out,)
        Scales of each row that has a kernel, by its index: integers are ``clip(rint(kernel / scales), -limit, limit)``.
    bits : int
        Bits of the weights.
    granularity, activation_dtype, rounding, scheme, range_method : str
        As `quantize_aware` was asked for.
    symmetric : bool
        False: ranges learn at both their ends.
    """

    network: Network
    ranges: Ranges
    kernel_scales: dict[int, npt.NDArray[np.float32]]
    bits: int
    granularity: str
    activation_dtype: str
    rounding: str
    scheme: str
    range_method: str
    symmetric: bool = False


def trained_ranges(network: Network) -> TrainedRanges | None:
    """Return the ranges and scales that a network has learned by quantization-aware training.

    Parameters
    ----------
    network : Network
        A network of any model.

    Returns
    -------
    TrainedRanges or None
        None for a network without fake quantization.

    Raises
    ------
    ValueError
        If its layers are not such as `quantize_aware` puts together.
    """
    if not network.rounds_kernels and not rows_of(network.inference, FAKE_QUANT).size:
        return None
    if not _is_ours(network):
        raise ValueError(_NOT_OURS)
    return _Restoring(network).result()


_NOT_OURS = (
    "quantize: the model has fake quantization that quantize_aware did not make; "
    "build the model without FakeQuantize layers, or by quantize_aware"
)


def _is_ours(network: Network) -> bool:
    """Tell whether a network's options are complete and its rows are as they say; a file may claim anything."""
    options = network.quantization
    known = {"granularity": GRANULARITIES, "activation_dtype": LIMITS, "rounding": ROUNDINGS, "bits": KERNEL_LIMITS}
    if set(options) != set(SETTLED):
        return False
    if not all(isinstance(value, str | int) and value in known.get(key, (value,)) for key, value in options.items()):
        return False
    rows, limit = network.inference, KERNEL_LIMITS[options["bits"]]
    rounding, dense = rows_of(rows, FAKE_QUANT), rows_of(rows, DENSE)
    limits = {(FAKE_QUANT.setting(row, "least"), FAKE_QUANT.setting(row, "most")) for row in rounding}
    fits = limits == {LIMITS[options["activation_dtype"]]}
    return bool(fits and (dense["scales"] >= 0).all() and (dense["limit"] == limit).all())


class _Restoring:
    """The restoration, row by row, of the plain network of one with fake quantization, and of what was in between.

    Parameters
    ----------
    network : Network
        A network with fake quantization.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._builder = NetworkBuilder(network.input_shape, network.dtype)
        if network.inference[0]["positions"] == 1:
            self._builder.flatten("")  # of the input: no row
        # Of each buffer, what stands for it: its name, its shape, and the number of its row; the input has none.
        self._now = {0: (self._builder.output, self._builder.shape, -1)}
        self._last = -1  # the number of the last row so far
        self._input: Range | None = None
        self._pre: dict[int, Range] = {}
        self._output: dict[int, Range] = {}
        self._scales: dict[int, npt.NDArray[np.float32]] = {}
        self._at = {parameter.offset: parameter for parameter in network.parameters}
        stands_for: dict[int, int] = {}
        self._readers: dict[int, int] = {}
        for row in network.inference:
            read = [stands_for.get(source, source) for source in sources(row)]
            if kind_of(row) is FAKE_QUANT:
                stands_for[int(row["output"])] = read[0]
            else:
                for source in read:
                    self._readers[source] = self._readers.get(source, 0) + 1
        self._stands_for = stands_for

    def result(self) -> TrainedRanges:
        """Return the plain network, its ranges and its scales."""
        for row in self._network.inference:
            name = self._network.names[int(row["number"])]
            if kind_of(row) is FAKE_QUANT:
                self._take_range(row)
            else:
                self._take_row(row, name)
        plain = self._builder.finish()
        same = {parameter.name: i for i, parameter in enumerate(self._network.parameters)}
        for parameter, segment in zip(plain.parameters, plain.segments, strict=True):
            segment["trainable"] = self._network.segments[same[parameter.name]]["trainable"]
        plain.refresh()
        plain.take_mask(self._network)
        count = len(plain.inference)
        if self._input is None or set(self._scales) != {r.index for r in plain.rows() if r.kind is DENSE}:
            raise ValueError(_NOT_OURS)
        pre = [self._pre.get(i, (0.0, 0.0)) for i in range(count)]
        output = [self._output.get(i, pre[i]) for i in range(count)]
        options = self._network.quantization
        return TrainedRanges(plain, Ranges(self._input, pre, output), self._scales, **options)

    def _take_range(self, row: Any) -> None:
        now = self._now[int(row["input"])]
        bounds = range_of(self._network, row)
        if now[2] < 0:
            self._input = bounds
        self._pre.setdefault(now[2], bounds)
        self._output[now[2]] = bounds
        self._now[int(row["output"])] = now

    def _parameter(self, offset: int) -> int:
        if offset < 0:
            return -1
        parameter: Parameter = self._at[offset]
        return self._builder.parameter(parameter.name, self._network.tensor(parameter))

    def _take_row(self, row: Any, name: str) -> None:
        builder, kind = self._builder, kind_of(row)
        source, builder.shape, producer = self._now[int(row["input"])]
        builder.output = source
        activation, last = self._network.activation_of(row), self._last
        if kind is DENSE:
            kernel, bias = self._parameter(int(row["kernel"])), self._parameter(int(row["bias"]))
            builder.dense(name, int(row["n_out"]), activation, kernel, bias)
        elif kind is ACTIVATION:
            source_buffer = int(row["input"])
            shared = self._readers[self._stands_for.get(source_buffer, source_buffer)] > 1
            rounded = producer in self._pre
            if producer != last or shared or (rounded and is_clamp(activation)):
                builder.pin()  # keeps it a row of its own
            builder.activation(name, activation)
        elif kind is ADD:
            builder.add(name, self._now[int(row["second"])][0])
        elif kind is RESHAPE:
            builder.flatten(name)
        else:
            raise ValueError(f"quantize: {layer_label(kind, name)} is not supported")
        number = producer if builder.output == source else last + 1
        if kind is DENSE and row["scales"] >= 0:
            self._scales[number] = self._network.tensor(self._at[int(row["scales"])]).astype(np.float32)
        elif kind not in (DENSE, ADD) and number != producer:  # as calibrate has it: its input's range
            bounds = self._output.get(producer, (0.0, 0.0)) if producer >= 0 else self._input or (0.0, 0.0)
            self._pre[number] = self._output[number] = bounds
        self._now[int(row["output"])] = builder.output, builder.shape, number
        self._last = max(last, number)
