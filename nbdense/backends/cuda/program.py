"""The kernels of networks of one dtype, made as they are first needed; the process keeps them."""

from __future__ import annotations

from collections.abc import Iterable

from nbdense.backends.cuda import rows, update
from nbdense.backends.cuda.products import Products
from nbdense.backends.cuda.translation import Translation


class Program:
    """All kernels of training and evaluation; numba compiles each when it is first launched.

    Parameters
    ----------
    dtype : str
        Of the networks.
    addresses : frozenset of int
        Of users' loops that their tables name.
    """

    def __init__(self, dtype: str, addresses: frozenset[int]) -> None:
        self.addresses = addresses
        translate = Translation(dtype, tuple(sorted(addresses)))
        self.choose, self.gather = rows.gathering(translate)
        self.activate, self.differentiate = rows.activating(translate)
        self.forward, self.backward = rows.walking(translate)
        self.statistics, self.sums = rows.statistics(translate)
        self.lose, self.add_up = rows.losing(translate)
        self.step = update.stepping(translate)
        self.penalise, self.measure, self.finish = rows.summing()
        self.fill, self.move, self.round_parameters = update.filling(translate)
        self.products = Products(dtype)


_programs: dict[str, list[Program]] = {}


def program(dtype: str, addresses: Iterable[int]) -> Program:
    """Return kernels for a dtype and users' loops: the first that know these loops, whatever others they know."""
    made = _programs.setdefault(dtype, [])
    needed = frozenset(addresses)
    known = next((one for one in made if needed <= one.addresses), None)
    if known is None:
        known = Program(dtype, needed)
        made.append(known)
    return known
