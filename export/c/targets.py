"""The processors that C is written for: the order in which weights lie, and how a compiler is told of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.int8]  # flat, in the order in which they lie in memory
_GROUP, _BLOCK = 4, 8  # outputs that are summed beside each other; inputs that a DSP takes at a time


def by_rows(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lay weights out by output: what compilers turn into vectors.

    Parameters
    ----------
    kernel : ndarray of int8, (n_in, n_out)
        The weights.
    """
    return kernel.T.reshape(-1)


def nibbles(kernel: npt.NDArray[np.int8]) -> Weights:
    """Lay weights of four bits out by output, two inputs a byte, the first in its lower half.

    Parameters
    ----------
    kernel : ndarray of int8, (n_in, n_out)
        The weights, in [-8, 7].
    """
    even = np.zeros((kernel.shape[1], kernel.shape[0] + kernel.shape[0] % 2), np.uint8)
    even[:, : kernel.shape[0]] = kernel.T.view(np.uint8) & 15
    return (even[:, ::2] | even[:, 1::2] << np.uint8(4)).view(np.int8).reshape(-1)


def by_fours(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lay weights of four outputs beside each other, input by input; of the outputs that are left, by output.

    Parameters
    ----------
    kernel : ndarray, (n_in, n_out)
        The weights.
    """
    return _grouped(kernel, 0)


def by_words(kernel: npt.NDArray[np.int8]) -> Weights:
    """Lay weights out as `by_fours`, with 128 more in the first three bytes of four.

    Parameters
    ----------
    kernel : ndarray of int8, (n_in, n_out)
        The weights.
    """
    order = _grouped(kernel, 0).copy()
    words = order[: kernel.shape[0] * (kernel.shape[1] - kernel.shape[1] % _GROUP)].reshape(-1, _GROUP)
    words.view(np.uint8)[:, :3] ^= 128
    return order


def by_blocks(kernel: npt.NDArray[np.int8]) -> Weights:
    """Lay out blocks of four outputs' four weights each; of the inputs that make no eight more, as `by_fours`.

    Parameters
    ----------
    kernel : ndarray of int8, (n_in, n_out)
        The weights.
    """
    return _grouped(kernel, kernel.shape[0] // _BLOCK * _BLOCK)


def _grouped(kernel: npt.NDArray[Any], in_blocks: int) -> npt.NDArray[Any]:
    n_out = kernel.shape[1]
    pieces = []
    for first in range(0, n_out - n_out % _GROUP, _GROUP):
        group = kernel[:, first : first + _GROUP]
        pieces.append(group[:in_blocks].reshape(-1, 4, _GROUP).transpose(0, 2, 1).reshape(-1))
        pieces.append(group[in_blocks:].reshape(-1))
    pieces.append(by_rows(kernel[:, n_out - n_out % _GROUP :]))
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Layout:
    """An order of weights of 8 bits, and the C functions that multiply by them.

    Attributes
    ----------
    lay_out : callable
        Gives the weights, (n_in, n_out), in that order.
    kernel, kernel_with_rest : str
        The C functions for numbers of outputs that are multiples of four, and for others.
    aligned : bool
        Whether weights are read as words.
    """

    lay_out: Callable[[npt.NDArray[np.int8]], Weights]
    kernel: str
    kernel_with_rest: str
    aligned: bool


ROWS = Layout(by_rows, "dense_by_rows", "dense_by_rows", False)
WORDS = Layout(by_words, "dense_of_words", "dense_of_words_and_rest", True)
CMSIS_NN = Layout(by_rows, "dense_by_cmsis_nn", "dense_by_cmsis_nn", False)
BLOCKS = Layout(by_blocks, "dense_of_blocks", "dense_of_blocks_and_rest", True)


@dataclass(frozen=True)
class Target:
    """A processor, or a kind of them.

    Attributes
    ----------
    title : str
        Its name, for people.
    layout : Layout
        The order of the weights.
    flags : tuple of str
        Options with which the ziglang wheel's compiler makes its code; none where that is this machine's own.
    """

    title: str
    layout: Layout
    flags: tuple[str, ...] = ()


def _arm(cpu: str) -> tuple[str, ...]:
    return "-target", "thumb-freestanding-eabi", f"-mcpu={cpu}"


TARGETS = {
    "generic": Target("any processor", ROWS),
    "cortex-m0plus": Target("Cortex-M0+", WORDS, _arm("cortex_m0plus")),
    "cortex-m4": Target("Cortex-M4", BLOCKS, _arm("cortex_m4")),
    "cortex-m7": Target("Cortex-M7", BLOCKS, _arm("cortex_m7")),
    "cortex-m33": Target("Cortex-M33", BLOCKS, _arm("cortex_m33+dsp")),
    "aarch64": Target("64-bit Arm", ROWS, ("-target", "aarch64-freestanding-none")),
    "riscv32": Target("32-bit RISC-V", ROWS, ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c")),
    "wasm32": Target("WebAssembly", ROWS, ("-target", "wasm32-freestanding")),
    "cmsis-nn": Target("any processor, on CMSIS-NN", CMSIS_NN),
}


def target_of(name: str) -> Target:
    """Return a target; refuse a name that there is not.

    Parameters
    ----------
    name : str
        A key of TARGETS.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(map(repr, TARGETS))}, got {name!r}")
    return TARGETS[name]
