"""The costs of a program on a processor, as sums of what was measured.

Constants and memory follow from the layers. Code and instructions are sums of what was measured of each C function
(`nbdense.export.c.costs.measured`): the first in object files, the second in an emulator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nbdense._tables import Table
from nbdense.export.c.costs.measured import CODE, INSTRUCTIONS
from nbdense.export.c.program import Program
from nbdense.export.c.steps.integers import DenseStep
from nbdense.export.c.targets import TARGETS, Target

_SAME = {"cortex-m33": "cortex-m4"}  # no emulator here runs its DSP instructions, which are these


@dataclass(frozen=True)
class LayerCost:
    """The costs of a layer.

    Attributes
    ----------
    name, title : str
        The layer's name, and its kind: of a sparse kernel the blocks in which it is held, too.
    multiply_adds : int
        For one row of data.
    flash : int
        Bytes of constants.
    ram : int
        Bytes of its output.
    """

    name: str
    title: str
    multiply_adds: int
    flash: int
    ram: int


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

    def report(self, form: str = "text") -> Any:
        """Return all of it, as text or as plain data.

        Parameters
        ----------
        form : str
            "text": a line, and a table of the layers, with bytes of constants and of outputs; "table", that alone; or
            "dict", of JSON's types.

        Returns
        -------
        str or dict

        Raises
        ------
        ValueError
            For another form.
        """
        if form == "dict":
            return {**asdict(self), "layers": [asdict(layer) for layer in self.layers]}
        if form not in ("text", "table"):
            raise ValueError(f"report: form must be 'text', 'table' or 'dict', got {form!r}")
        layers = cost_table(self.layers, self.ram)
        return layers if form == "table" else f"{self}\n{layers}"


def cost_table(layers: Sequence[LayerCost], memory: int) -> str:
    """Write the costs of layers as a table, with those of all in the last row.

    Parameters
    ----------
    layers : sequence of LayerCost
        Their costs.
    memory : int
        Bytes of the memory that all need.
    """
    numbers = [(layer.multiply_adds, layer.flash, layer.ram) for layer in layers]
    numbers.append((sum(row[0] for row in numbers), sum(row[1] for row in numbers), memory))
    names = [*((layer.name, layer.title) for layer in layers), ("all", "")]
    rows = [(*name, *(f"{number:,}" for number in row)) for name, row in zip(names, numbers, strict=True)]
    return Table(("layer", "kind", "multiply-adds", "flash", "output"), rows, left=2).text()


def estimated(
    program: Program, target: str, features: Mapping[str, int], layers: Sequence[LayerCost]
) -> Estimate | None:
    """Return the costs of a program on a processor; None where that, or what it is made of, was not measured.

    Parameters
    ----------
    program : Program
        The program.
    target : str
        The processor.
    features : mapping of str to int
        How often there is what its code is made of.
    layers : sequence of LayerCost
        The costs of each layer.
    """
    if target not in CODE or program.value == "float":
        return None
    code = sum(CODE[target].get(feature, 0) * number for feature, number in features.items())
    counts, instructions = INSTRUCTIONS.get(_SAME.get(target, target)), None
    if counts is not None:
        work = work_of(program, TARGETS[target])
        instructions = round(sum(counts.get(name, 0) * number for name, number in work.items()))
    return Estimate(
        target,
        round(code) + sum(layer.flash for layer in layers),
        program.own_memory,
        instructions,
        program.multiply_adds,
        tuple(layers),
    )


def work_of(program: Program, target: Target) -> dict[str, int]:
    """Count what the layers of a program repeat on a processor, by the names that INSTRUCTIONS has.

    Parameters
    ----------
    program : Program
        The program.
    target : Target
        The processor.
    """
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
