"""FunctionTransformer in ONNX: what a function does to columns is recorded, and written as nodes.

A function of NumPy's elementwise functions, of `np.hstack` and of columns taken by [:, ...] has a form; others are
refused by name. Whole numbers and float64 are computed in float64, float32 in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

# NumPy's functions that ONNX has, by its name for them.
_OPERATORS = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "power": "Pow",
    "negative": "Neg",
    "absolute": "Abs",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "floor": "Floor",
    "ceil": "Ceil",
    "rint": "Round",
    "sign": "Sign",
    "minimum": "Min",
    "maximum": "Max",
    "reciprocal": "Reciprocal",
}
# Others, by those.
_FORMULAS: dict[str, Callable[..., Any]] = {
    "square": lambda x: x * x,
    "positive": lambda x: x,
    "log1p": lambda x: np.log(x + 1.0),
    "expm1": lambda x: np.exp(x) - 1.0,
    "log2": lambda x: np.log(x) / np.log(2.0),
    "log10": lambda x: np.log(x) / np.log(10.0),
    "floor_divide": lambda x, y: np.floor(x / y),
    "remainder": lambda x, y: x - y * np.floor(x / y),
    "fabs": np.absolute,
    "deg2rad": lambda x: x * (np.pi / 180.0),
}
INPUT = ""  # the operator of what a function is given


class FormError(Exception):
    """An error: a function does what has no form in ONNX."""


@dataclass(frozen=True, eq=False)
class Columns(np.lib.mixins.NDArrayOperatorsMixin):
    """Columns that a function is given, or makes of others: NumPy's functions of it record what they are.

    Attributes
    ----------
    operator : str
        ONNX's operator that makes them.
    operands : tuple of Columns or float
        What of.
    width : int
        How many there are.
    attributes : mapping
        The operator's.
    places : list of int or None
        Columns that are taken of the operand, by a Gather.
    """

    operator: str
    operands: tuple[Any, ...]
    width: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    places: list[int] | None = None

    ndim = 2

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        if method != "__call__" or options or (name not in _OPERATORS and name not in _FORMULAS):
            raise FormError(f"np.{name}" if method == "__call__" and not options else f"np.{name} with options")
        if name in _FORMULAS:
            return _FORMULAS[name](*inputs)
        return _combined(_OPERATORS[name], inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in (np.hstack, np.concatenate, np.column_stack):
            raise FormError(f"np.{function.__name__}")
        if function is np.concatenate and (args[1:] or (kwargs.pop("axis", 0),))[0] not in (1, -1):
            raise FormError("np.concatenate along another axis than 1")
        parts = tuple(args[0])
        if kwargs or not all(isinstance(part, Columns) for part in parts):
            raise FormError(f"np.{function.__name__} of something else than columns")
        return Columns("Concat", parts, sum(part.width for part in parts), {"axis": 1})

    def __getitem__(self, key: Any) -> Columns:
        if not (isinstance(key, tuple) and len(key) == 2 and key[0] == slice(None)):
            raise FormError(f"a selection by [{key!r}]; take columns by numbers, as in [:, [0, 2]]")
        places = np.arange(self.width)[key[1]]
        if places.ndim != 1:
            raise FormError(f"a selection of one column by [:, {key[1]!r}]; keep the axis, as in [:, [{key[1]!r}]]")
        return Columns("Gather", (self,), len(places), {"axis": 1}, [int(place) for place in places])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise FormError("what makes an array of its columns")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise FormError(f"the columns' .{name}")


def _combined(operator: str, inputs: tuple[Any, ...]) -> Columns:
    for value in inputs:
        if not isinstance(value, Columns) and np.ndim(value) != 0:
            raise FormError(f"an array of shape {np.shape(value)} beside its columns")
    operands = [value if isinstance(value, Columns) else float(value) for value in inputs]
    widths = {operand.width for operand in operands if isinstance(operand, Columns)} - {1}
    if len(widths) > 1:
        raise FormError(f"{operator} of {' and '.join(map(str, sorted(widths)))} columns")
    return Columns(operator, tuple(operands), widths.pop() if widths else 1)


def recorded(transformer: Any, width: int) -> Columns:
    """Return what a FunctionTransformer makes of columns.

    Parameters
    ----------
    transformer : FunctionTransformer
        The transformer.
    width : int
        How many columns it is given.

    Raises
    ------
    ValueError
        If it has no form in ONNX; the function is named.
    """
    function = transformer.func
    given = Columns(INPUT, (), width)
    if function is None:
        return given
    name = getattr(function, "__name__", type(function).__name__)
    advice = "write it with NumPy's elementwise functions, np.hstack and [:, columns], or apply it before the pipeline"
    try:
        result = function(given, **(transformer.kw_args or {}))
    except FormError as error:
        raise ValueError(
            f"FunctionTransformer: ONNX has no form of {error} in the function {name!r}; {advice}"
        ) from error
    except Exception as error:  # whatever a function that wants something else raises
        raise ValueError(
            f"FunctionTransformer: the function {name!r} cannot be recorded ({error}); {advice}"
        ) from error
    if not isinstance(result, Columns):
        raise ValueError(f"FunctionTransformer: the function {name!r} returns a {type(result).__name__}; {advice}")
    return result


def function_shapes(operator: Any) -> None:
    """Declare what a FunctionTransformer's output is, for skl2onnx.

    Parameters
    ----------
    operator : Operator
        The transformer's.
    """
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    kinds = [type(variable.type) for variable in operator.inputs]
    if operator.raw_operator.func is None and len(set(kinds)) == 1:
        kind = kinds[0]
    elif StringTensorType in kinds:
        raise ValueError("FunctionTransformer: its columns hold text, of which ONNX has no functions; encode it first")
    else:
        kind = FloatTensorType if set(kinds) == {FloatTensorType} else DoubleTensorType
    batch = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(kind([batch, recorded(operator.raw_operator, _width(operator)).width]))


def _width(operator: Any) -> int:
    return sum(int(variable.type.shape[1]) for variable in operator.inputs)


def convert_function(scope: Any, operator: Any, container: Any) -> None:
    """Write a FunctionTransformer's nodes, for skl2onnx.

    Parameters
    ----------
    scope, operator, container : Scope, Operator, ModelComponentContainer
        As skl2onnx hands them to its converters.
    """
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    output = operator.outputs[0]
    known = {FloatTensorType: (TensorProto.FLOAT, np.float32), DoubleTensorType: (TensorProto.DOUBLE, np.float64)}
    elem_type, dtype = known.get(type(output.type), (None, None))

    def node(kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        name = name or scope.get_unique_variable_name("columns")
        container.add_node(kind, inputs, [name], name=scope.get_unique_operator_name(kind), **attributes)
        return name

    def constant(value: Any, kind: Any) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, kind), scope.get_unique_variable_name("constant"))
        container.initializers.append(tensor)
        return str(tensor.name)

    sources = [variable.full_name for variable in operator.inputs]
    if elem_type is not None:
        sources = [
            source if type(variable.type) is type(output.type) else node("Cast", [source], to=elem_type)
            for source, variable in zip(sources, operator.inputs, strict=True)
        ]
    written: dict[int, str] = {}

    def write(columns: Any) -> str:
        if not isinstance(columns, Columns):
            return constant(columns, dtype)
        if id(columns) not in written:
            if columns.operator == INPUT:
                written[id(columns)] = sources[0] if len(sources) == 1 else node("Concat", sources, axis=1)
            else:
                inputs = [write(operand) for operand in columns.operands]
                inputs += [] if columns.places is None else [constant(columns.places, np.int64)]
                written[id(columns)] = node(columns.operator, inputs, **columns.attributes)
        return written[id(columns)]

    node("Identity", [write(recorded(operator.raw_operator, _width(operator)))], output.full_name)
