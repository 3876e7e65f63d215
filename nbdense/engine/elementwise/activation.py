"""An activation: what the library knows of it, and its use on arrays.

Activations are compiled into the program, or on demand: then their loops are called by address, as those of a user's
own functions are, and cost nothing where they are not used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile.loops import kernel_loop, loop, run_loop

Alpha = float | tuple[float, ...]
ON_DEMAND = 1000  # codes from here on are called by address, numbered in each network
POSITIVE = math.ulp(0.0)  # the least number above 0


@dataclass(frozen=True)
class Parameter:
    """A number that an activation has beside what it is applied to.

    Attributes
    ----------
    name : str
        Its name.
    least : float
        The least that it may be.
    none : float, optional
        The infinity that it may be too, which None stands for.
    """

    name: str
    least: float = -math.inf
    none: float | None = None

    def checked(self, owner: str, value: Any) -> float:
        """Return a value as a float; refuse what the parameter cannot be.

        Parameters
        ----------
        owner : str
            The activation's name, for the error.
        value : object
            The value.

        Raises
        ------
        ValueError
            If it is no number, or too small.
        """
        if self.none is not None and (value is None or value == self.none):
            return self.none
        try:
            fits = not isinstance(value, bool) and math.isfinite(value) and value >= self.least
        except TypeError:
            fits = False
        if fits:
            return float(value)
        least = {POSITIVE: " above 0", -math.inf: ""}.get(self.least, f" at least {self.least:g}")
        none = "" if self.none is None else " or None"
        raise ValueError(f"activation {owner!r}: {self.name} must be a finite number{least}{none}, got {value!r}")


@dataclass(frozen=True)
class Activation:
    """One activation function: a layer's ``activation=`` argument, and a function of arrays.

    Parameters
    ----------
    name : str
        Keras's name.
    code : int
        Its number in layer tables; ON_DEMAND: it is not compiled into the program.
    forward : kernel or None
        ``forward(z, *parameters)``; None where the clamp ``lower..upper`` in the product's epilogue is all of it. With
        ``rowwise`` it gets a row of columns, which it replaces.
    derivative : kernel or None
        ``derivative(z, a, *parameters)`` of the output with respect to z; None: 1 everywhere, or no scalar function.
        With ``rowwise``, derivative(z, a, deltas) replaces a row's deltas.
    from_output : bool
        Whether the derivative reads only the output ``a``; then the pre-activation is not kept.
    onnx : str
        The operator that computes it in ONNX; empty for none.
    lower, upper : float
        The clamp.
    alpha : float or tuple of float
        The parameter of those that have one; all of those that have several.
    parameters : tuple of Parameter
        Their names and bounds.
    clamp : callable or None
        ``clamp(*parameters)`` gives ``lower`` and ``upper``, where they depend on parameters.
    variant : callable or None
        The activation for Keras's arguments, where these choose among rows.
    rowwise : bool
        Whether an output depends on the whole row.
    homogeneous : bool
        Whether f(c z) = c f(z) for every c > 0.
    not_negative : bool
        Whether no output is below 0.
    own : bool
        Whether it is made of a user's functions, ``forward(z)`` and ``derivative(z)``.
    write_onnx : callable or None
        ``write_onnx(graph, source, target)`` writes the ONNX nodes of such a one, if it has such a form.
    """

    name: str
    code: int
    forward: Callable[..., Any] | None
    derivative: Callable[..., Any] | None
    from_output: bool
    onnx: str
    lower: float = -math.inf
    upper: float = math.inf
    alpha: Alpha = 0.0
    parameters: tuple[Parameter, ...] = ()
    clamp: Callable[..., tuple[float, float]] | None = None
    variant: Callable[..., Activation] | None = None
    rowwise: bool = False
    homogeneous: bool = False
    not_negative: bool = False
    own: bool = False
    write_onnx: Callable[[Any, str, str], Any] | None = None

    @property
    def __name__(self) -> str:
        """The name, where code asks a function for it."""
        return self.name

    @property
    def numbers(self) -> tuple[float, ...]:
        """All parameters."""
        if not self.parameters:
            return ()
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)

    @property
    def is_clamp(self) -> bool:
        """True where it is no more than a clamp, or nothing at all."""
        return self.forward is None

    def with_alpha(self, alpha: float | Sequence[float]) -> Activation:
        """Return the same activation with another parameter.

        Parameters
        ----------
        alpha : float or sequence of float
            The parameter, such as relu6's most (above 0), leaky_relu's slope, elu's most negative output (both at
            least 0); all of them where there are several.

        Raises
        ------
        ValueError
            If it is not such a number, or the activation has no parameter.
        """
        if not self.parameters:
            raise ValueError(f"activation {self.name!r} has no parameter alpha")
        several = isinstance(alpha, Sequence) and not isinstance(alpha, str)
        given = tuple(alpha) if several else (alpha,)  # type: ignore[arg-type]
        if len(given) != len(self.parameters):
            names = ", ".join(parameter.name for parameter in self.parameters)
            raise ValueError(f"activation {self.name!r} has the parameters {names}, got {alpha!r}")
        numbers = tuple(
            parameter.checked(self.name, number) for parameter, number in zip(self.parameters, given, strict=True)
        )
        lower, upper = (self.lower, self.upper) if self.clamp is None else self.clamp(*numbers)
        made = dataclasses.replace(self, alpha=numbers if len(numbers) > 1 else numbers[0], lower=lower, upper=upper)
        if self.clamp is not None and not lower < upper:
            raise ValueError(f"activation {self.name!r}: a clamp to [{lower:g}, {upper:g}] leaves no two numbers")
        return made

    def with_parameters(self, *values: Any, **named: Any) -> Activation:
        """Return the activation for Keras's arguments.

        Parameters
        ----------
        *values, **named
            What stands behind x in a call, such as ``negative_slope=0.1``; ``alpha`` is any single parameter.

        Raises
        ------
        ValueError
            If it has no such parameters, or they cannot be.
        """
        if not values and not named:
            return self
        try:
            if self.variant is not None:
                return self.variant(*values, **named)
            return self.with_alpha(tuple(self._bound(values, named)))
        except TypeError as error:
            raise ValueError(f"activation {self.name!r} doesn't take these arguments: {error}") from error

    def _bound(self, values: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
        """Yield a value for each parameter, of those given and of those that are."""
        names = [parameter.name for parameter in self.parameters]
        if len(names) == 1 and "alpha" in named:
            named = {names[0]: named["alpha"]}
        if len(values) > len(names) or not set(named) <= set(names[len(values) :]):
            raise TypeError(f"it has {', '.join(names) or 'no parameter'}, got {[*values, *named]}")
        for place, (name, number) in enumerate(zip(names, self.numbers, strict=True)):
            yield values[place] if place < len(values) else named.get(name, number)

    def __call__(self, x: Any, *values: Any, **named: Any) -> npt.NDArray[Any]:
        """Apply the activation to an array.

        Parameters
        ----------
        x : array-like
            Numbers. Those that have no float dtype of their own are taken as float32.
        *values, **named
            Keras's further arguments: parameters, such as ``negative_slope=0.1``, or ``axis`` (a number or several)
            of one that is of whole rows.

        Returns
        -------
        ndarray
            Of the same shape and float dtype.

        Raises
        ------
        ValueError
            If x is no array of real numbers, or it does not take these arguments.
        """
        if self.rowwise:
            return self._over_axis(_as_floats(self.name, x), *values, **named)
        chosen = self.with_parameters(*values, **named)
        given = _as_floats(self.name, x)
        return chosen.applied(given.astype(_computed(given.dtype))).astype(given.dtype)

    def _over_axis(self, x: npt.NDArray[Any], axis: int | Sequence[int] = -1) -> npt.NDArray[Any]:
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        try:
            moved = np.moveaxis(x, axes, range(-len(axes), 0))
        except ValueError as error:
            raise ValueError(
                f"activation {self.name!r}: axis {axis!r} of an array of shape {x.shape}: {error}"
            ) from error
        count = math.prod(moved.shape[moved.ndim - len(axes) :])
        rows = moved.reshape(-1, count).astype(_computed(x.dtype))
        made = self.applied(rows).astype(x.dtype).reshape(moved.shape)
        return np.ascontiguousarray(np.moveaxis(made, range(-len(axes), 0), axes))

    def applied(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the activation of an array, by the formula that networks are compiled from.

        Parameters
        ----------
        x : ndarray of float32 or float64
            Numbers; of one that is of whole rows, a matrix of these.
        """
        if self.is_clamp:
            return np.clip(x, self.lower, self.upper)
        made = np.array(x, order="C")
        address = self._loop("forward", made.dtype, self.forward)
        for row in made if self.rowwise else [made]:
            run_loop(address, row, self.numbers)
        return made

    def fields(self, dtype: Any) -> dict[str, Any]:
        """Return what the row of a layer table says of it.

        Parameters
        ----------
        dtype : dtype
            Of the network.
        """
        numbers = dict(zip(("alpha", "beta", "gamma"), self.numbers, strict=False))
        fields = {"activation": self.code, "alpha": 0.0, "lower": self.lower, "upper": self.upper, **numbers}
        if self.code >= ON_DEMAND:
            fields["call_forward"], fields["call_backward"] = self.calls(dtype)
            fields["joins"] = not self.own and not self.rowwise
        return fields

    def calls(self, dtype: Any) -> tuple[int, int]:
        """Return the addresses of the loops of one that is compiled on demand, forward and backward; 0: there is none.

        Parameters
        ----------
        dtype : dtype
            Type of the elements.

        Raises
        ------
        ValueError
            If numba cannot compile a user's functions.
        """
        return self._loop("forward", dtype, self.forward), self._loop("backward", dtype, self.derivative)

    def _loop(self, role: str, dtype: Any, function: Callable[..., Any] | None) -> int:
        if function is None:
            return 0
        if self.own:
            return loop(role, dtype, function, owner=f"activation {self.name!r}")
        if self.rowwise:
            return kernel_loop(self.name, f"row_{role}", dtype, function)
        return kernel_loop(self.name, role, dtype, function, len(self.parameters))


def json_alpha(alpha: Alpha) -> float | list[float | None]:
    """Return parameters as JSON has them: None for an infinity.

    Parameters
    ----------
    alpha : float or tuple of float
        Of an activation.
    """
    if isinstance(alpha, tuple):
        return [None if math.isinf(number) else number for number in alpha]
    return alpha


def _as_floats(name: str, x: Any) -> npt.NDArray[Any]:
    """Return an array of floats: of its own dtype, or float32."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"activation {name!r}: real numbers are wanted, got an array of {array.dtype}")
    return array if array.dtype.kind == "f" and hasattr(x, "dtype") else array.astype(np.float32)


def _computed(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Return the dtype to compute in."""
    return np.float64 if dtype.itemsize > 4 else np.float32
