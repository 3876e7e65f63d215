"""Stand-ins for arrays of targets and outputs, which record what a function of NumPy does to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, NoReturn

import numpy as np

from nbdense.losses.tracing.expressions import (
    COUNT,
    HOT,
    OPERATIONS,
    OUTPUT,
    TARGET,
    Expression,
    apply,
    number,
    power,
    reduction,
    total,
)


class Shape(Enum):
    """The shape of an array that is recorded, in words."""

    NUMBER = "no rows"
    COLUMNS = "(rows, columns)"
    KEPT = "(rows, 1)"
    ROWS = "(rows,)"
    ALL = "all rows as one number"


class TracingError(ValueError):
    """Error of a function that cannot be recorded."""


_SAME = {"true_divide": "divide", "fabs": "absolute", "abs": "absolute", "fmax": "maximum", "fmin": "minimum"} | {
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "invert": "logical_not",
}
_LINEAR = ("add", "subtract", "multiply", "divide", "negative")  # of a mean over rows, the mean over rows of as much


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that is recorded; NumPy's functions and Python's operators take it.

    Parameters
    ----------
    expression : Expression
        Its numbers.
    form : Shape
        Its shape.
    """

    def __init__(self, expression: Expression, form: Shape) -> None:
        self.expression, self.form = expression, form

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Traced:
        if method != "__call__":
            _refuse(f"np.{ufunc.__name__}.{method}")
        if options:
            _refuse(f"np.{ufunc.__name__}({', '.join(options)}=)")
        return _elementwise(ufunc.__name__, *inputs)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        name = function.__name__
        if name not in _FUNCTIONS:
            _refuse(f"np.{name}")
        try:
            return _FUNCTIONS[name](*arguments, **options)
        except TypeError as error:
            raise TracingError(f"np.{name}: {error}") from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python and NumPy look for
            raise AttributeError(name)
        if name not in _METHODS:
            _refuse(f".{name}")
        return lambda *arguments, **options: _METHODS[name](self, *arguments, **options)

    @property
    def shape(self) -> _Sizes:
        """Its shape, of which the last size is known."""
        return _Sizes.of(self.form)

    @property
    def ndim(self) -> int:
        """Its number of axes."""
        return {Shape.COLUMNS: 2, Shape.KEPT: 2, Shape.ROWS: 1}.get(self.form, 0)

    def __bool__(self) -> bool:  # noqa: PLE0304 (it raises)
        _refuse("a decision by its values (if, while, and, or, min, max)", "np.where, np.maximum and & choose")

    def __float__(self) -> float:
        _refuse("float(), or a function of Python's math module", "take NumPy's")

    def __int__(self) -> int:
        _refuse("int()")

    def __len__(self) -> int:  # noqa: PLE0303 (it raises)
        _refuse("len()", "np.mean knows how many there are")

    def __iter__(self) -> Any:
        _refuse("a loop over it")

    def __getitem__(self, key: Any) -> Any:
        _refuse("a selection by [...]", "np.where leaves columns out")

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse("an assignment to [...]", "np.where chooses")

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        _refuse("a conversion to an array")


class _Sizes(tuple[Any, ...]):
    """A shape whose number of columns is known once the loss is used, and whose number of rows is not for use."""

    __slots__ = ()

    @classmethod
    def of(cls, form: Shape) -> _Sizes:
        sizes: dict[Shape, tuple[Any, ...]] = {
            Shape.COLUMNS: (None, Traced(COUNT, Shape.NUMBER)),
            Shape.KEPT: (None, 1),
            Shape.ROWS: (None,),
        }
        return cls(sizes.get(form, ()))

    def __getitem__(self, index: Any) -> Any:
        size = super().__getitem__(index)
        if size is None:
            _refuse("the number of rows", "a loss is a number a row, and the mean over rows is taken of it")
        return size


def _refuse(operation: str, advice: str = "") -> NoReturn:
    raise TracingError(f"{operation} cannot be compiled{'; ' if advice else ''}{advice}")


def _traced(value: Any) -> Traced:
    if isinstance(value, Traced):
        return value
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiub":
        return Traced(number(float(value)), Shape.NUMBER)
    if isinstance(value, np.ndarray | list | tuple):
        _refuse(f"an array of shape {np.shape(value)} beside y_true and y_pred", "numbers alone are constants")
    _refuse(f"a {type(value).__name__} beside y_true and y_pred")


def _joined(operation: str, arrays: tuple[Traced, ...]) -> Shape:
    """Return the shape of a function of arrays, element by element."""
    forms = {array.form for array in arrays} - {Shape.NUMBER}
    if not forms:
        return Shape.NUMBER
    if Shape.ALL in forms and (len(forms) > 1 or operation not in _LINEAR or _is_product(operation, arrays)):
        _refuse(f"np.{operation} of a mean over all rows", "with axis=-1 a mean is one of each row")
    if forms == {Shape.COLUMNS, Shape.KEPT}:
        return Shape.COLUMNS
    if len(forms) > 1:
        words = " and ".join(sorted(form.value for form in forms))
        _refuse(f"np.{operation} of shapes {words}", "keepdims=True keeps an axis for the columns")
    return forms.pop()


def _is_product(operation: str, arrays: tuple[Traced, ...]) -> bool:
    """Tell a product or quotient that is not linear in its means over rows."""
    if operation == "divide":
        return arrays[1].form is Shape.ALL
    return operation == "multiply" and all(array.form is Shape.ALL for array in arrays)


def _elementwise(name: str, *inputs: Any) -> Traced:
    name = _SAME.get(name, name)
    if name in ("positive", "conjugate"):
        return _traced(inputs[0])
    if name == "reciprocal":
        name, inputs = "divide", (1.0, *inputs)
    if name not in OPERATIONS or len(OPERATIONS[name].slopes) != len(inputs):
        _refuse(f"np.{name}")
    arrays = tuple(_traced(value) for value in inputs)
    expressions = [array.expression for array in arrays]
    form = _joined(name, arrays)
    return Traced(power(*expressions) if name == "power" else apply(name, *expressions), form)


def _reduced(name: str, array: Any, axis: Any, keepdims: bool) -> Traced:
    array = _traced(array)
    if axis is None and name == "mean" and array.form is not Shape.NUMBER:
        expression = total(array.expression) / COUNT if array.form is Shape.COLUMNS else array.expression
        return Traced(expression, Shape.ALL)
    if axis not in (-1, 1, (-1,), (1,)) or array.form in (Shape.ROWS, Shape.NUMBER, Shape.ALL):
        _refuse(f"np.{name}(axis={axis!r}) of shape {array.form.value}", "axis=-1 reduces a row's columns")
    expression = array.expression
    if array.form is Shape.COLUMNS:
        if name == "mean":
            expression = total(expression) / COUNT
        else:
            expression = total(expression) if name == "sum" else reduction(name, expression)
    return Traced(expression, Shape.KEPT if keepdims else Shape.ROWS)


def _reducing(name: str) -> Callable[..., Traced]:
    def reduce(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Traced:
        return _reduced(name, a, axis, keepdims)

    return reduce


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Traced:
    if ord == 1:
        return _reduced("sum", _elementwise("absolute", x), axis, keepdims)
    if ord not in (None, 2):
        _refuse(f"np.linalg.norm(ord={ord!r})")
    return _elementwise("sqrt", _reduced("sum", _elementwise("square", x), axis, keepdims))


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Traced:
    low, high = (second if first is None else first for first, second in ((a_min, min), (a_max, max)))
    return _elementwise("clip", a, -math.inf if low is None else low, math.inf if high is None else high)


def _squeezed(a: Any, axis: Any = None) -> Traced:
    return Traced(a.expression, Shape.ROWS if a.form is Shape.KEPT else a.form)


def _expanded(a: Any, axis: Any) -> Traced:
    if a.form is not Shape.ROWS or axis not in (-1, 1):
        _refuse(f"np.expand_dims(axis={axis!r}) of shape {a.form.value}")
    return Traced(a.expression, Shape.KEPT)


def _like(value: float | None) -> Callable[..., Traced]:
    def fill(a: Any, fill_value: float | None = None, dtype: Any = None) -> Traced:
        return Traced(number(value if fill_value is None else fill_value), a.form)  # type: ignore[arg-type]

    return fill


_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _reducing(name) for name in ("mean", "sum", "max", "min")},
    "clip": _clip,
    "squeeze": _squeezed,
    "astype": lambda a, dtype, **options: a,
    "copy": lambda a: a,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_METHODS,
    "amax": _METHODS["max"],
    "amin": _METHODS["min"],
    "norm": _norm,
    "expand_dims": _expanded,
    "zeros_like": _like(0.0),
    "ones_like": _like(1.0),
    "full_like": _like(None),
    "where": lambda condition, x, y: _elementwise("where", condition, x, y),
}


def record(name: str, function: Callable[[Any, Any], Any], *, sparse: bool = False) -> Expression:
    """Return the number of a row that a function of targets and outputs is the mean of, by calling it once.

    Parameters
    ----------
    name : str
        The loss's, for the error.
    function : callable
        ``function(y_true, y_pred)``, which computes with NumPy.
    sparse : bool
        Whether targets are class numbers: the function gets the columns in which they would be 1 then.

    Raises
    ------
    ValueError
        If it does what cannot be compiled; the error names that.
    """
    target, output = (Traced(part, Shape.COLUMNS) for part in (HOT if sparse else TARGET, OUTPUT))
    try:
        result = function(target, output)
        if not isinstance(result, Traced):
            raise TracingError(f"it returns {type(result).__name__}, and no function of y_pred")
        expression = result.expression
        if result.form is Shape.COLUMNS:  # as in Keras, whose mean is over all that there is
            expression = total(expression) / COUNT
        if not expression.learns:
            raise TracingError("its value does not depend on y_pred, or has no slope")
    except TracingError as error:
        raise TracingError(
            f"loss {name!r} cannot be traced: {error}. A loss is made of NumPy's operations on (rows, columns), such "
            "as np.mean(np.square(y_true - y_pred), axis=-1); losses.custom(name, value, derivative) takes a function "
            "of two numbers, and its derivative"
        ) from error
    return expression
