"""Constants that are integers with scales and zero points: weights and biases of quantized layers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from nbdense.export.read.tensors import Array


@dataclass(frozen=True, eq=False)
class Integers:
    """The integers of a constant, from before it was dequantized.

    Attributes
    ----------
    values : ndarray of integers
        As they are stored.
    scale, zero : ndarray
        Scales and zero points of all, or along an axis, or of blocks of it; no zero is 0.
    axis : int
        Along which there are several.
    block : int
        Elements a block; 0: there are none.
    """

    values: Array
    scale: Array
    zero: Array | None = None
    axis: int = 1
    block: int = 0

    @property
    def transposed(self) -> Integers:
        """The same for the transposed matrix."""
        turned = [None if part is None else part.T if part.ndim == 2 else part for part in (self.scale, self.zero)]
        assert turned[0] is not None
        return dataclasses.replace(self, values=self.values.T, scale=turned[0], zero=turned[1], axis=1 - self.axis)

    def of_columns(self, bits: int = 8) -> tuple[Array, Array, Array | None, int]:
        """Return a kernel of int8 (n_in, n_out), its scales and zero points (blocks, n_out), and the inputs a block.

        The kernel is the integers less their zero points where the bits hold them: zero points are None then. Else both
        are as they are stored, those of unsigned types counted from their middle. A block of 0: all inputs.

        Parameters
        ----------
        bits : int
            The bits that are to hold an integer.

        Raises
        ------
        ValueError
            If integers are wider, or scales lie along the inputs.
        """
        scales, zero = self._of_blocks(self.scale.astype(np.float32)), np.zeros((), np.int32)
        zero = zero if self.zero is None else self.zero.astype(np.int32)
        kernel, zeros = self.values - self._along(zero), None
        if not _fits(kernel, bits):
            middle = 2 ** (bits - 1) if self.values.dtype.kind == "u" else 0
            kernel = self.values.astype(np.int32) - middle
            zeros = np.broadcast_to(self._of_blocks(zero) - middle, scales.shape)
            if not _fits(kernel, bits) or not _fits(zeros, bits):
                raise ValueError(
                    f"its weights must be integers of {bits} bits, got {self.values.dtype} of a wider range"
                )
        block = 0 if self.scale.size == 1 else self.block
        return kernel.astype(np.int8), scales, None if zeros is None else zeros.astype(np.int8), block

    def _of_blocks(self, part: Array) -> Array:
        """Return scales or zero points as (blocks, n_out)."""
        n = self.values.shape[1]
        if part.size == 1:
            return np.full((1, n), part.reshape(-1)[0])
        if self.block and self.axis == 0 and part.ndim == 2:
            return part
        if self.block or self.axis != 1 or part.shape != (n,):
            raise ValueError(
                "its weights must have a scale for each output or for blocks of inputs, got one for each input"
            )
        return part[None]

    @property
    def real(self) -> Array:
        """Real numbers that the integers stand for."""
        zero = self._along(np.zeros((), np.int32) if self.zero is None else self.zero.astype(np.int32))
        return (self.values.astype(np.int32) - zero).astype(np.float32) * self._along(self.scale.astype(np.float32))

    def _along(self, part: Array) -> Array:
        return along(part, self.values.shape, self.axis, self.block)


def _fits(values: Array, bits: int) -> bool:
    return bool(-(2 ** (bits - 1)) <= values.min(initial=0) and values.max(initial=0) < 2 ** (bits - 1))


def along(part: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Return scales or zero points in the shape that broadcasts against their tensor.

    Parameters
    ----------
    part : ndarray
        One number; one for each place of the axis; or of the rank of the tensor, with one for each block.
    shape : tuple of int
        The tensor's name.
    axis : int
        Along which there are several.
    block : int
        Elements a block; 0: there are none.

    Raises
    ------
    ValueError
        If they do not fit.
    """
    if part.size == 1:
        return part.reshape(())
    if block and part.ndim == len(shape) and part.shape[axis] == -(-shape[axis] // block):
        repeated = np.repeat(part, block, axis)[(slice(None),) * axis + (slice(shape[axis]),)]
        if repeated.shape == shape:
            return repeated
    if not block and part.ndim == 1 and len(shape) > axis and part.size == shape[axis]:
        return part.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    raise ValueError(f"scales or zero points of shape {part.shape} do not fit a tensor of shape {shape}")
