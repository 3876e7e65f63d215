"""A network as a program in C: its steps, where its tensors lie, and what its ends are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbdense.engine.rows import ACTIVATION, DENSE, RESHAPE
from nbdense.export.c.memory import place_of_input, plan
from nbdense.export.c.steps.floats import refusal, row_step
from nbdense.export.c.steps.integers import STEPS, DenseStep, layer_numbers
from nbdense.export.c.steps.rounding import ROUNDINGS, Rounding
from nbdense.export.c.steps.step import Step
from nbdense.export.networks import is_quantized, network_of
from nbdense.export.write.folding import inference_rows
from nbdense.network import Network
from nbdense.network.folding import reads
from nbdense.quant.layers.base import Layer
from nbdense.quant.layers.float_layers import FloatLayer
from nbdense.quant.model.network import LIMITS, QuantizedFlatten, QuantizedNetwork
from nbdense.quant.sparse.programs import engine_network

INPUT = 0  # the tensor that the caller brings


@dataclass(frozen=True)
class Call:
    """A step, and the tensors that it reads and writes.

    Attributes
    ----------
    step : Step
        The step.
    name, title : str
        The layer's name, and its kind.
    reads, writes : tuple of int, int
        Tensors.
    multiply_adds : int
        Multiplications with weights, for one row of data.
    """

    step: Step
    name: str
    title: str
    reads: tuple[int, ...]
    writes: int
    multiply_adds: int


@dataclass(frozen=True, eq=False)
class Program:
    """The steps that a C source is written of.

    Attributes
    ----------
    calls : list of Call
        Steps, in the order in which they run.
    value : str
        The C type of activations.
    sizes : dict of int to int
        Elements of each tensor.
    places : dict of int to int
        Where in the memory each tensor between input and output lies; and
    memory : int
        its elements.
    input_place : int or None
        Where in it the integers of real inputs may lie; None: it has no room for them.
    output : int
        The tensor that the caller gets.
    parts : dict of str to str
        What stands for each ``$name`` in the kernels.
    input_format, output_format : (float, int)
        Scale and zero point.
    columns : int
        Of the output's last axis, along which a softmax is.
    softmax : bool
        Whether real outputs go through a softmax.
    """

    calls: list[Call]
    value: str
    sizes: dict[int, int]
    places: dict[int, int]
    memory: int
    input_place: int | None
    output: int
    parts: dict[str, str]
    input_format: tuple[float, int]
    output_format: tuple[float, int]
    columns: int
    softmax: bool

    @property
    def own_memory(self) -> int:
        """Elements of the memory with the one that real inputs are quantized in."""
        return self.memory + (self.sizes[INPUT] if self.input_place is None else 0)

    @property
    def multiply_adds(self) -> int:
        """Multiplications with weights for one row of data."""
        return sum(call.multiply_adds for call in self.calls)


def network_in_c(model: Any) -> Network | QuantizedNetwork:
    """Return the network of a model that becomes C: of a sparse model in float, the float network.

    Parameters
    ----------
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.

    Raises
    ------
    TypeError
        If it is none of those.
    """
    network: Any = network_of(model)
    if not is_quantized(network) or network.final_activation != "linear":
        return network
    return engine_network(network) if all(isinstance(layer, FloatLayer) for layer in network.layers) else network


def program_of(network: QuantizedNetwork) -> Program:
    """Return the program of a quantized network.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.

    Raises
    ------
    ValueError
        If a layer has no form in C; it is named.
    """
    calls, sizes, same = list[Call](), {INPUT: math.prod(network.tensors[0])}, {INPUT: INPUT}
    for index, layer in enumerate(network.layers):
        reads = tuple(same[tensor] for tensor in network.inputs_of(index))
        if isinstance(layer, QuantizedFlatten):  # its positions lie end to end already
            same[index + 1] = reads[0]
            continue
        if type(layer) not in STEPS:
            raise ValueError(_refusal(layer))
        same[index + 1] = index + 1
        sizes[index + 1] = math.prod(network.tensors[index + 1])
        step = STEPS[type(layer)](layer, network)
        title, cost = _described(step, layer.title, layer.positions, layer.multiply_adds)
        calls.append(Call(step, layer.name, title, reads, index + 1, cost))
    output = same[len(network.layers)]
    if output == INPUT:
        raise ValueError("the network gives its input as it is: there is nothing to write in C")
    places, memory, input_place = _planned(calls, sizes, output)
    output_format = network.formats[-1]
    assert output_format is not None
    value = f"{network.activation_dtype}_t"
    return Program(
        calls,
        value,
        sizes,
        places,
        memory,
        input_place,
        output,
        _parts(calls, network),
        _input_format(network),
        output_format,
        network.tensors[-1][1],
        network.final_activation == "softmax",
    )


def float_program_of(network: Network) -> Program:
    """Return the program of a float network, of the rows that run where nothing is trained.

    Parameters
    ----------
    network : Network
        The network; float64 weights become float32.

    Raises
    ------
    ValueError
        If a row has no form in C; it is named.
    """
    calls, sizes, tensors = list[Call](), {INPUT: network.n_in}, {0: INPUT}  # tensors by buffer
    for index, row in enumerate(inference_rows(network, fold=True)):
        given = tuple(tensors[buffer] for buffer in reads(row))
        if row.kind is RESHAPE:
            tensors[row.output] = given[0]
            continue
        why = refusal(row)
        if why is not None:
            raise ValueError(why)
        tensors[row.output] = output = index + 1
        sizes[output] = row.positions * row.n_out
        step, cost = row_step(row), row.positions * row.n_in * row.n_out if row.kind is DENSE else 0
        title = row.kind.title if row.kind is not ACTIVATION else row.activation.name
        title, cost = _described(step, title, row.positions, cost)
        calls.append(Call(step, row.name, title, given, output, cost))
    if not calls:
        raise ValueError("the network gives its input as it is: there is nothing to write in C")
    output = calls[-1].writes
    planned, columns, none = _planned(calls, sizes, output), network.output_shape[-1], (1.0, 0)
    return Program(calls, "float", sizes, *planned, output, {"value": "float"}, none, none, columns, False)


def _planned(calls: Sequence[Call], sizes: Mapping[int, int], output: int) -> tuple[dict[int, int], int, int | None]:
    """Return the places of the tensors in memory, its size, and where the input has room in it."""
    inner = {tensor: size for tensor, size in sizes.items() if tensor not in (INPUT, output)}
    reads, writes = [call.reads for call in calls], [call.writes for call in calls]
    places, memory = plan(inner, reads, writes)
    return places, memory, place_of_input(INPUT, sizes, places, reads, writes)


def _described(step: Step, title: str, positions: int, multiply_adds: int) -> tuple[str, int]:
    """Return a layer's kind and its multiplications, of a sparse kernel those with its blocks."""
    if step.sparse is None:
        return title, multiply_adds
    return f"{title}, sparse 1x{step.sparse.width}", positions * step.sparse.weights.size


def _input_format(network: QuantizedNetwork) -> tuple[float, int]:
    formats = {
        form
        for index, layer in enumerate(network.layers)
        for tensor, form in zip(network.inputs_of(index), layer.input_formats, strict=True)
        if tensor == INPUT
    }
    if len(formats) != 1:
        raise ValueError(
            f"the network's input is read with {len(formats)} different scales and zero points: C takes it in one; put "
            "one dense layer before what reads it twice"
        )
    (form,) = formats
    assert form is not None
    return form


def _refusal(layer: Layer) -> str:
    kind = layer.title
    if layer.output_format is None and layer.kind == "float":
        hint = (
            "a network in C has integers or floats alone: quantize it without what keeps this layer in float "
            "(fold_batch_normalization, another activation, no accuracy_budget), or export the float model"
        )
    else:
        hint = "quantize the model with scheme='static'"
    return f"layer {layer.name!r} ({kind}) has no form in C among integers: {hint}"


def _parts(calls: Sequence[Call], network: QuantizedNetwork) -> dict[str, str]:
    """Return what stands for each name in the kernels: what all layers of the network have in common."""
    dense = [call.step for call in calls if isinstance(call.step, DenseStep)]
    least, most = LIMITS[network.activation_dtype]
    value = f"{network.activation_dtype}_t"
    from_least = f" + {-least}" if least else ""
    parts = {
        "value": value,
        "other_rounding": "ndef" if ROUNDINGS[network.rounding].cmsis_nn else "def",
        "with": "with" if ROUNDINGS[network.rounding].cmsis_nn else "without",
        "least": str(least),
        "most": str(most),
        "from_least": from_least,
        "to_least": f" - {-least}" if least else "",
        "widen": "sxtb16" if least else "uxtb16",
        "load": "ldrsb" if least else "ldrb",
    }
    return {**parts, **_dense_parts(dense, ROUNDINGS[network.rounding], (least, most), parts)} if dense else parts


def _dense_parts(
    dense: Sequence[DenseStep], rounding: Rounding, whole: tuple[int, int], parts: Mapping[str, str]
) -> dict[str, str]:
    """Return the parts that dense layers share: their structure, and how sums become integers."""
    short = all(step.scales.short for step in dense)
    each = not short or not all(step.scales.shared for step in dense)
    bounded = any(step.limits != whole for step in dense)
    tables = [step.layer.table is not None for step in dense]
    value, entry = parts["value"], f"layer->table[q{parts['from_least']}]"
    numbers = layer_numbers(dense[0], rounding, each)
    looked_up = f"({value})q"
    if any(tables):
        looked_up = entry if all(tables) else f"layer->table != 0 ? {entry} : ({value})q"
    low, high = ("layer->low", "layer->high") if bounded else (parts["least"], parts["most"])
    return {
        "requantised": rounding.kernel if not each else rounding.kernel_each if short else rounding.kernel_long,
        "pointers": each * "    const int8_t *shifts;\n"
        + any(tables) * f"    const {value} *table;\n"
        + any(step.sparse is not None for step in dense) * "    const uint8_t *gaps;\n    const uint16_t *counts;\n",
        "numbers": "".join(
            f"    {kind} {name};\n" for name, (kind, _) in numbers.items() if bounded or name not in ("low", "high")
        ),
        "clamped": f"q < {low} ? {low} : q > {high} ? {high} : q",
        "looked_up": looked_up,
        "rest": "yes" if any(step.layer.n_out % 4 for step in dense if step.is_by_target) else "",
    }
