"""A program: steps one after the other, each of which reads what the input or steps before it made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.runtime.activations import Function
from nbdense.runtime.floats import Step
from nbdense.runtime.integers import Format, dequantize, quantize

Array = npt.NDArray[Any]


@dataclass
class Program:
    """Steps that make outputs of rows of data.

    Attributes
    ----------
    dtype : dtype
        Type of the rows, and of floats.
    input_shape, output_shape : tuple of int
        Shapes of one row of data.
    positions : int
        Rows of columns in a row of data.
    steps : list of (step, tuple of int)
        Each step, and what it reads: 0 is the input, i + 1 what step i made. The last one's is the output.
    output_format : (float, int) or None
        Scale and zero point of the output, if it is integers: then it holds them less the zero point.
    integers : dtype or None
        Type of integers; None for a program of floats alone.
    final : callable or None
        What outputs go through, as floats.
    takes_whole_call : bool
        Whether a step takes a scale from all rows of a call.
    """

    dtype: np.dtype[Any]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...] = ()
    positions: int = 1
    steps: list[tuple[Step, tuple[int, ...]]] = field(default_factory=list)
    output_format: Format = None
    integers: np.dtype[Any] | None = None
    final: Function | None = None
    takes_whole_call: bool = False

    def add(self, step: Step, *inputs: int) -> int:
        """Add a step; return the number of what it makes.

        Parameters
        ----------
        step : callable
            The step.
        *inputs : int
            What it reads.
        """
        self.steps.append((step, inputs))
        return len(self.steps)

    def run(self, x: Array) -> Array:
        """Return what the last step makes of rows of data.

        Parameters
        ----------
        x : ndarray of ``dtype``, (rows, elements)
            Rows.
        """
        made = [x if self.positions == 1 else x.reshape(len(x) * self.positions, -1)]
        for step, inputs in self.steps:
            made.append(step(*[made[number] for number in inputs]))
        return made[-1]


class Wiring:
    """Tensors of a program in the forms in which they are there: floats, or integers of a scale and a zero point.

    Parameters
    ----------
    program : Program
        The program, to which steps are added.
    limits : (int, int)
        The least and the greatest integer.
    """

    def __init__(self, program: Program, limits: tuple[int, int]) -> None:
        self._program, self._limits = program, limits
        self._numbers: dict[tuple[int, Format], int] = {(0, None): 0}
        self._formats: list[Format] = [None]

    def read(self, tensor: int, form: Format) -> int:
        """Return the number of what the program has of a tensor in a form, which is made where it is not there.

        Parameters
        ----------
        tensor : int
            The tensor: 0 is the input.
        form : (float, int) or None
            Scale and zero point of integers; None: floats.
        """
        if (tensor, form) not in self._numbers:
            own = self._formats[tensor]
            step = dequantize(own) if own is not None else quantize(form, self._limits)
            self._numbers[tensor, form] = self._program.add(step, self._numbers[tensor, own])
        return self._numbers[tensor, form]

    def write(self, step: Step, inputs: list[int], form: Format) -> None:
        """Add the step that makes the next tensor.

        Parameters
        ----------
        step : callable
            The step.
        inputs : list of int
            What it reads, as `read` returned it.
        form : (float, int) or None
            The tensor's scale and zero point; None: floats.
        """
        tensor = len(self._formats)
        self._numbers[tensor, form] = self._program.add(step, *inputs)
        self._formats.append(form)
