"""A C source in the making: constants, structures of layers, calls, and the functions that these need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.export.c.kernels import KERNELS, with_needs
from nbdense.export.c.targets import Target

_WIDTH = 118
POINTER = 4  # bytes, of the processors that flash is counted for


@dataclass
class Source:
    """The texts that a program writes itself into.

    Attributes
    ----------
    name : str
        What its functions begin with.
    target : Target
        The processor.
    value : str
        The C type of activations.
    parts : dict of str to str
        What stands for each ``$name`` in the kernels.
    constants : list of str
        Definitions of arrays.
    calls : list of str
        The statements of the function that predicts.
    flash : int
        Bytes of constants so far.
    """

    name: str
    target: Target
    value: str
    parts: dict[str, str]
    constants: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    flash: int = 0
    _kernels: set[str] = field(default_factory=set)
    _layers: dict[str, list[str]] = field(default_factory=dict)
    _arrays: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def array(self, kind: str, name: str, values: npt.NDArray[Any], aligned: bool = False) -> str:
        """Define a constant array, once for each content; return its name.

        Parameters
        ----------
        kind : str
            The C type of its elements.
        name : str
            What to call it.
        values : ndarray
            Its elements, of that type.
        aligned : bool
            Whether it must begin at a multiple of four bytes.
        """
        key = (kind, values.tobytes())
        if key not in self._arrays:
            self._arrays[key] = name
            self.flash += values.nbytes
            mark = "ALIGNED " if aligned else ""
            head = f"static const {mark}{kind} {name}[{values.size}] = {{\n"
            self.constants.append(head + "".join(f"    {line}\n" for line in numbers(values)) + "};\n")
        return self._arrays[key]

    def number(self, value: float) -> str:
        """Return a float32 number as C has it.

        Parameters
        ----------
        value : float
            The number; finite.
        """
        return real(value)

    def layer(self, kind: str, fields: Mapping[str, str], size: int) -> str:
        """Add a layer's structure to those of its kind; return its address.

        Parameters
        ----------
        kind : str
            The C type of the structure.
        fields : mapping of str to str
            What its members are initialised with.
        size : int
            Its bytes.
        """
        layers = self._layers.setdefault(kind, [])
        layers.append("{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}")
        self.flash += size
        return f"&{kind}s[{len(layers) - 1}]"

    def call(self, kernels: Iterable[str], statement: str) -> None:
        """Add a statement to the function that predicts.

        Parameters
        ----------
        kernels : iterable of str
            The kernels that it needs.
        statement : str
            The statement.
        """
        self._kernels.update(kernels)
        self.calls.append(statement)

    @property
    def can_fail(self) -> bool:
        """Tell whether one of the calls can fail."""
        return any(KERNELS[name].fails for name in self._kernels)

    def repeated(self, kernels: Iterable[str], positions: int, call: str, operands: Mapping[str, int]) -> None:
        """Add a call, or a loop of calls with operands that move on.

        Parameters
        ----------
        kernels : iterable of str
            The kernels that it needs.
        positions : int
            How many calls there are.
        call : str
            The call, with the operands' names in braces.
        operands : mapping of str to int
            Elements by which each operand moves on.
        """
        if positions == 1:
            self.call(kernels, call.format(*operands) + ";")
            return
        moved = call.format(*(f"{operand} + i * {step}" for operand, step in operands.items()))
        self.call(kernels, f"for (i = 0; i < {positions}; ++i) {{\n        {moved};\n    }}")

    def functions(self) -> tuple[list[str], set[str]]:
        """Return the texts of the kernels, and the headers that they need."""
        names = self.kernels()
        texts = [Template(KERNELS[name].text).substitute(self.parts) for name in names]
        return texts, {header for name in names for header in KERNELS[name].headers}

    def kernels(self) -> list[str]:
        """Return the kernels that are needed, each behind what it calls."""
        return with_needs(self._kernels)

    def need(self, *kernels: str) -> None:
        """Take kernels in.

        Parameters
        ----------
        *kernels : str
            Their names.
        """
        self._kernels.update(kernels)

    def structures(self) -> list[str]:
        """Return the definitions of all layers' structures."""
        return [
            f"static const {kind} {kind}s[{len(layers)}] = {{\n" + "".join(f"    {text},\n" for text in layers) + "};\n"
            for kind, layers in self._layers.items()
        ]


def numbers(values: npt.NDArray[Any]) -> list[str]:
    """Write numbers as lines of C.

    Parameters
    ----------
    values : ndarray
        Integers, or float32 numbers.
    """
    flat = values.reshape(-1)
    texts = [real(number) for number in flat] if flat.dtype.kind == "f" else list(map(str, flat.tolist()))
    if flat.dtype == np.int32:  # C has no literal of the least
        texts = ["INT32_MIN" if text == "-2147483648" else text for text in texts]
    a_line = max(1, _WIDTH // (max(map(len, texts), default=1) + 2))
    return [", ".join(texts[at : at + a_line]) + "," for at in range(0, len(texts), a_line)]


def real(number: Any) -> str:
    """Write a float32 number as C.

    Parameters
    ----------
    number : float
        The number; finite.
    """
    text = f"{float(np.float32(number)):.9g}"
    return (text if "." in text or "e" in text else text + ".0") + "f"
