"""The kernels of networks of one dtype, made as they are first needed; the process keeps them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from nbdense.backends.cuda import rows, update
from nbdense.backends.cuda.fused import training
from nbdense.backends.cuda.fused.tiles import Tile
from nbdense.backends.cuda.products import Products
from nbdense.backends.cuda.translation import Translation


class Common:
    """Kernels of training and evaluation that call no loop by its address; numba compiles each with its first launch.

    Parameters
    ----------
    dtype : str
        Of the networks.
    """

    def __init__(self, dtype: str) -> None:
        translate = Translation(dtype)
        self.choose, self.place, self.gather = rows.gathering(translate)
        self.statistics, self.sums = rows.statistics(translate)
        self.add_up, self.finish = rows.adding_up()
        self.penalise, self.measure = rows.summing()
        self.fill, self.move, self.round_parameters = update.filling(translate)
        self.products = Products(dtype)


class Program:
    """The other kernels, which have loops on demand compiled into them: what differs in a loop shares all but that.

    Parameters
    ----------
    dtype : str
        Of the networks.
    activations, losses, steps : frozenset of int
        Addresses of the loops that their tables name, the last of optimizers.
    """

    def __init__(self, dtype: str, activations: frozenset[int], losses: frozenset[int], steps: frozenset[int]) -> None:
        self.activate, self.differentiate = _made(rows.activating, dtype, activations)
        self.forward, self.backward = _made(rows.walking, dtype, activations)
        self._called = activations | losses
        self.lose = _made(rows.losing, dtype, self._called)
        self.step = _made(update.stepping, dtype, steps)

    def train(self, tile: Tile) -> Any:
        """Return the kernel of fused steps, which are those of networks of float32."""
        return _made(_training(tile), "float32", self._called)


@functools.cache
def _training(tile: Tile) -> Callable[[Translation], Any]:
    return functools.partial(training.make, tile=tile)


@functools.cache
def _made(make: Callable[[Translation], Any], dtype: str, addresses: frozenset[int]) -> Any:
    return make(Translation(dtype, tuple(sorted(addresses))))


common = functools.cache(Common)
program = functools.cache(Program)
