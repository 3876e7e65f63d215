"""The CPU engine's functions as device functions: the mathematics is written once, in `nbdense.engine`.

What numba has compiled for the CPU keeps the Python function that it was made from. That is taken with all that it
names: kernels by their Python functions, intrinsics, which are the CPU's instructions, by their plain twins, and
functions with a body a dtype by the one of this network's, and NumPy's by those of `math`, where the device has none of
that name. An activation, loss or optimizer that the CPU's tables have
is here by being there; so is a user's own, whose compiled loops are known to the tables by their addresses.
"""

from __future__ import annotations

import dis
import itertools
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.cuda.ufuncs import get_ufunc_info

from nbdense._compile.loops import LOOPS
from nbdense.backends.cuda.device import SIMULATED, device_function, intrinsic
from nbdense.engine.elementwise.custom import call_loop, call_step
from nbdense.engine.kernels.product import gated_product, product
from nbdense.engine.kernels.views import flat, part, stretch


def loops_of(layers: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the addresses of the loops on demand that rows of a table call forward."""
    return tuple(sorted({int(call) for call in layers["call_forward"]} - {0}))


class Translation:
    """Device functions of the engine's, for networks of one dtype.

    Parameters
    ----------
    dtype : dtype
        Of the networks.
    addresses : tuple of int
        Of the users' loops that their tables name.
    instead : mapping, optional
        Device functions that take the place of the engine's.
    host : bool
        Whether Python is to call the functions, on the host.
    """

    def __init__(
        self,
        dtype: npt.DTypeLike,
        addresses: tuple[int, ...] = (),
        instead: Mapping[Any, Any] | None = None,
        host: bool = False,
    ) -> None:
        # These functions know nothing of the device: the simulator takes them as they are, which is faster.
        self._compiled: Callable[[Any], Any] = _same if host or SIMULATED else device_function
        self._body = 0 if np.dtype(dtype) == np.float32 else 1
        self._made: dict[int, tuple[Any, Any]] = {}
        self._replace(numba.carray, self._compiled(_whole))
        self._replace(product, self._compiled(_product))
        self._replace(gated_product, self._compiled(_no_gated_product))
        if self._compiled is device_function:
            for ufunc, scalar in UFUNCS.items():
                self._replace(ufunc, self._compiled(scalar) if isinstance(scalar, types.FunctionType) else scalar)
            for view in (flat, stretch, part):  # no function of a device may return one
                self._replace(view, intrinsic(view.__wrapped__, view.twin))
        for function, made in (instead or {}).items():
            self._replace(function, made)
        self._replace(call_loop, self._chain(addresses, _LOOP))
        self._replace(call_step, self._chain(addresses, _STEP))

    def __call__(self, function: Any) -> Any:
        """Return the device function of one of the engine's functions, or of a user's.

        Parameters
        ----------
        function : callable
            Compiled for the CPU, or plain.
        """
        made = self._named(function)
        return self._function(function) if made is function and isinstance(function, types.FunctionType) else made

    def _replace(self, function: Any, made: Any) -> None:
        self._made[id(function)] = (function, made)  # which keeps the id its own

    def _named(self, value: Any) -> Any:
        """Return what stands for a value that a function names; most stand for themselves."""
        if id(value) in self._made:
            return self._made[id(value)][1]
        if isinstance(value, np.ufunc) and self._compiled is device_function:
            _check_ufunc(value)
        if isinstance(value, types.ModuleType | type):
            return value
        for attribute in ("twin", "py_func"):
            plain = getattr(value, attribute, None)
            if isinstance(plain, types.FunctionType):
                return self._function(plain, value)
        if hasattr(value, "bodies"):
            return self._function(value.bodies[self._body], value)
        return value

    def _function(self, plain: types.FunctionType, value: Any = None) -> Any:
        space: dict[str, Any] = {"__builtins__": __builtins__, "__name__": plain.__module__}
        for name, attributes in _globals_of(plain.__code__).items():
            if name in plain.__globals__:
                named = plain.__globals__[name]
                module = isinstance(named, types.ModuleType)
                space[name] = self._module(named, attributes) if module else self._named(named)
        closure = tuple(types.CellType(self._named(cell.cell_contents)) for cell in plain.__closure__ or ())
        made = self._compiled(types.FunctionType(plain.__code__, space, plain.__name__, plain.__defaults__, closure))
        self._replace(plain if value is None else value, made)
        return made

    def _module(self, module: types.ModuleType, names: set[str]) -> types.ModuleType:
        """Return a module with what stands for its functions that are named, if it is one of the engine's, or NumPy."""
        if not module.__name__.startswith("nbdense.") and module is not np:
            return module
        made = types.ModuleType(module.__name__)
        for name in names & set(vars(module)):
            setattr(made, name, self._named(getattr(module, name)))
        return made

    def _chain(self, addresses: tuple[int, ...], source: tuple[str, str, str]) -> Any:
        """Return a function that calls the loop at an address: an if-chain, for there are no addresses on a device."""
        head, call, otherwise = source
        space: dict[str, Any] = {"np": np}
        lines = [head]
        for k, address in enumerate(addresses):
            plain: Any = getattr(LOOPS[address], "_pyfunc", LOOPS[address])
            if (head == _STEP[0]) != ("iteration" in plain.__code__.co_varnames):
                continue
            space[f"loop_{k}"] = self._function(plain)
            lines += [f"    if address == {address}:", f"        {call.format(loop=f'loop_{k}')}"]
        exec("\n".join([*lines, f"    {otherwise}"]), space)
        return self._compiled(space[head.split("(")[0].removeprefix("def ")])


def _check_ufunc(ufunc: np.ufunc) -> None:
    try:
        get_ufunc_info(ufunc)
    except KeyError:
        raise NotImplementedError(
            f"the CUDA engine has no numpy.{ufunc.__name__}, which a function of this model's names; write it with "
            "other functions, or call set_device('cpu')"
        ) from None


def _sign(x):
    return math.copysign(1.0, x) if x < 0 or x > 0 else x


def _logaddexp(x, y):
    if x == y:  # infinities too
        return x + math.log(2.0)
    larger, smaller = (x, y) if x > y else (y, x)
    return larger + math.log1p(math.exp(smaller - larger))


# NumPy's functions that losses may name, where numba.cuda has them for arrays alone or not at all: of numbers.
UFUNCS: dict[np.ufunc, Callable[..., Any]] = {
    np.absolute: abs,
    np.sign: _sign,
    np.sqrt: math.sqrt,
    np.exp: math.exp,
    np.expm1: math.expm1,
    np.log1p: math.log1p,
    np.logaddexp: _logaddexp,
}


def _same(function: Any) -> Any:
    return function


def _globals_of(code: types.CodeType) -> dict[str, set[str]]:
    """Return the global names in a function's code, each with the attributes of it that are named."""
    found: dict[str, set[str]] = {}
    instructions = [one for one in dis.get_instructions(code) if one.opname != "EXTENDED_ARG"]
    for one, after in itertools.pairwise(instructions):
        if one.opname == "LOAD_GLOBAL":
            attributes = found.setdefault(one.argval, set())
            if after.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes.add(after.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for name, attributes in _globals_of(constant).items():
                found.setdefault(name, set()).update(attributes)
    return found


def _whole(array, shape):
    """Stand for ``carray``: loops get arrays here, not pointers."""
    return array


def _product(m, n, depth, a, b, init, c, lower, upper):
    """Stand for the CPU's tiles where a thread has a product of its own; large ones are those of `products`."""
    for i in range(m):
        for j in range(n):
            total = init[0][init[1] + i * init[2] + j]
            for k in range(depth):
                total += a[0][a[1] + i * a[2] + k * a[3]] * b[0][b[1] + k * b[2] + j]
            total = lower if total < lower else total
            c[0][c[1] + i * c[2] + j] = upper if total > upper else total


def _no_gated_product(m, n, depth, a, b, init, c, gate):
    """Stand for products that no thread has."""


_LOOP = (
    "def call(address, values, a, b, c, count, p, q, r):",
    "return {loop}(values[a : a + count], values[b : b + count], values[c : c + count], count, p, q, r)",
    "return 0.0",
)
_STEP = (
    "def step(address, params, state, low, high, rate, iteration, hyper):",
    "{loop}(params[low:high], state[:, low:high], high - low, high - low, rate, iteration, hyper)",
    "return",
)
