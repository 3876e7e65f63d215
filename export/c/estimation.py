"""`estimate`: what a model costs on a processor, before anything is compiled.

Constants and memory follow from the layers. Code and instructions are sums of what was measured of each C function
(`nbdense.export.c.measured`): the first in object files, the second in an emulator.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from nbdense.export.c.api import texts_of
from nbdense.export.c.measured import CODE, INSTRUCTIONS
from nbdense.export.c.program import network_in_c, program_of
from nbdense.export.c.steps.integers import DenseStep
from nbdense.export.c.targets import TARGETS, Target
from nbdense.export.c.writing import LayerCost
from nbdense.export.networks import is_quantized
from nbdense.quant.model.network import QuantizedNetwork

_SAME = {"cortex-m33": "cortex-m4"}  # no emulator here runs its DSP instructions, which are these


@dataclass(frozen=True)
class Estimate:
    """The costs of a model on a processor.

    Attributes
    ----------
    target : str
        The processor.
    flash : int
        Bytes of code and constants, of the object that `to_object` makes.
    ram : int
        Bytes of memory of its own, with the one that real inputs are quantized in; the stack, up to 250 bytes, and the
        caller's input and output come on top.
    instructions : int or None
        That one row takes, with integers at both ends; None where that was not measured. They are not cycles.
    multiply_adds : int
        Multiplications with weights for one row.
    layers : tuple of LayerCost
        The costs of each layer.
    """

    target: str
    flash: int
    ram: int
    instructions: int | None
    multiply_adds: int
    layers: tuple[LayerCost, ...]

    def __str__(self) -> str:
        count = "" if self.instructions is None else f", about {self.instructions:,} instructions a row"
        return f"{TARGETS[self.target].title}: {self.flash:,} bytes of flash, {self.ram:,} of RAM{count}"


def estimate(model_or_quantized: Any, target: str = "cortex-m4") -> Estimate:
    """Estimate what a model takes on a processor: flash, RAM and instructions, without a compiler.

    Parameters
    ----------
    model_or_quantized : QuantizedModel or QuantizedNetwork
        The model, statically quantized.
    target : str
        The processor: one of `to_c`'s but "generic".

    Returns
    -------
    Estimate

    Raises
    ------
    TypeError, ValueError
        As `to_c`; or if the model is a float one, whose code depends on the compiler's library.
    """
    if target not in CODE:
        raise ValueError(f"target must be one of {', '.join(map(repr, CODE))}, got {target!r}")
    network: Any = network_in_c(model_or_quantized)
    if not is_quantized(network):
        raise ValueError("estimate: quantize the model first: a float one's code depends on the compiler's library")
    texts = texts_of(network, "net", "net.h", target=target)
    program, costs = program_of(network), CODE[target]
    code = sum(costs.get(feature, 0) * number for feature, number in texts.features.items())
    counts = INSTRUCTIONS.get(_SAME.get(target, target))
    instructions = None
    if counts is not None:
        work = work_of(network, TARGETS[target])
        instructions = round(sum(counts.get(name, 0) * number for name, number in work.items()))
    return Estimate(
        target,
        round(code) + sum(cost.flash for cost in texts.costs),
        program.own_memory,
        instructions,
        program.multiply_adds,
        texts.costs,
    )


def work_of(network: QuantizedNetwork, target: Target) -> dict[str, int]:
    """Count what the layers of a network repeat on a processor, by the names that INSTRUCTIONS has.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    target : Target
        The processor.
    """
    program = program_of(network)
    work = Counter({"row": 1})
    for call in program.calls:
        kind = type(call.step).__name__
        work[f"call of {kind}"] += 1
        if isinstance(call.step, DenseStep):
            work.update(_work_of_dense(call.step, target, program.parts["requantised"]))
        else:
            work[f"output of {kind}"] += program.sizes[call.writes]
    return dict(work)


def _work_of_dense(step: DenseStep, target: Target, requantised: str) -> dict[str, int]:
    """Count a dense layer's products by the loop that they are in, and its outputs."""
    n_in, n_out, positions = step.layer.n_in, step.layer.n_out, step.layer.positions
    outputs = {f"output of {requantised}": positions * n_out, "row of dense": positions}
    kernel = target.layout.kernel
    if step.sparse is not None:
        width = step.sparse.width
        return {
            **outputs,
            f"sparse outputs, {width}": positions * len(step.sparse.counts),
            f"block of {width}": positions * len(step.sparse.weights),
        }
    if step.layer.bits == 4 or kernel == "dense_by_rows":
        return {**outputs, f"product of {step.layer.bits} bits": positions * n_in * n_out}
    groups = n_out // 4
    blocks = n_in // 8 * 8 if kernel == "dense_of_blocks" else n_in
    return {
        **outputs,
        "group": positions * groups,
        "input": positions * n_in,
        "product of four": positions * blocks * groups * 4,
        "product of four, left": positions * (n_in - blocks) * groups * 4,
        "product, left": positions * n_in * (n_out % 4),
    }
