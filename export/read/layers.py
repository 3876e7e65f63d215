"""From tensors to layers: the chain of steps between the ends of a graph, and the Sequential that it makes."""

from __future__ import annotations

import re

import numpy as np

from nbdense.export.graph.steps import (
    AffineStep,
    ColumnsStep,
    DenseStep,
    DropoutStep,
    FunctionStep,
    LayerStep,
    ShapeStep,
    Step,
    SumStep,
    affine,
    function,
)
from nbdense.export.read import nodes
from nbdense.export.read.patterns import FUNCTIONS, affine_of, composed, fitted, recognise
from nbdense.export.read.tensors import Array
from nbdense.export.read.tidying import tidy
from nbdense.export.read.values import Value
from nbdense.layers import Activation, Dense, Dropout, Flatten, Input, Layer, Residual, batch_normalization
from nbdense.models import Sequential

MOST_NESTED = 32  # residual blocks in one another
_LAST_WORDS = {  # of weights' names, behind the layer's
    *("weight", "weights", "kernel", "bias", "gamma", "beta", "scale", "w", "matmul", "readvariableop", "quantized"),
    *("weight_quantized", "kernel_quantized", "gemm", "biasadd", "cast", "batchnorm", "transpose"),
}


def steps_between(start: Value, end: Value, half: bool = False, depth: int = 0) -> list[Step]:
    """Return the steps that make ``end`` of ``start``, in the order in which they run.

    Parameters
    ----------
    start, end : Value
        Everything that ``end`` depends on must go through ``start``.
    half : bool
        Whether constants were float16.
    depth : int
        Number of residual blocks around the steps.

    Raises
    ------
    ValueError
        Naming the node that no layer stands for.
    """
    groups: list[list[Step]] = []
    value = end
    while value is not start:
        if value.dominator is None:
            raise ValueError(f"{end.place}: its inputs come from different tensors, where a layer reads one")
        try:
            steps, value = _step(value, half, depth)
        except UnknownError as error:
            raise ValueError(f"{value.place}: {error}") from error
        groups.append(steps)
    return tidy([step for group in reversed(groups) for step in group])


class UnknownError(ValueError):
    """An error about a node that no layer stands for, yet to be named."""


def one_step(value: Value, half: bool) -> tuple[list[Step], Value]:
    """Return the steps that make a value, without residual blocks, and the value that they read.

    Parameters
    ----------
    value : Value
        The result.
    half : bool
        Whether constants were float16.

    Raises
    ------
    UnknownError
        If no layer does what it does.
    """
    try:
        steps, source = _step(value, half, None)
        if source.readers == 1 and all(isinstance(step, AffineStep) for step in steps):
            behind = composed(source)
            if behind is not None:  # a norm, and its scale or shift
                return tidy([*behind[0], *steps]), behind[1]
        return steps, source
    except UnknownError as error:
        raise UnknownError(f"{value.place}: {error}") from error


def _step(value: Value, half: bool, depth: int | None) -> tuple[list[Step], Value]:
    """Return the steps that make a value, and the value that they read."""
    operator, steps = value.operator, _own_steps(value)
    if steps is not None:
        return steps, value.values[0]
    single = len(value.values) == 1
    if single and operator in FUNCTIONS:
        try:
            return FUNCTIONS[operator](value), value.values[0]
        except ValueError as error:
            raise UnknownError(str(error)) from error
    pattern = composed(value) or recognise(value, half) or affine_of(value) or fitted(value)
    if pattern is not None:
        return pattern
    if operator in ("Add", "Sum") and not single and depth is not None:
        return _sum(value, half, depth)
    raise UnknownError("no layer does what this node does with its inputs")


def _own_steps(value: Value) -> list[Step] | None:
    """Return the steps of a node that has a class of its own; None for one that has none."""
    constants = [np.asarray(part) for part in value.inputs if isinstance(part, np.ndarray)]
    match value.node:
        case nodes.DenseNode():
            kernel, bias = value.inputs[1:3]
            assert isinstance(kernel, np.ndarray) and not isinstance(bias, Value)
            return [DenseStep(kernel, bias, name=value.name)]
        case nodes.LayerNode(form=form, settings=settings):
            tensors = dict(zip(value.node.tensors, constants, strict=True))
            known = None if form.affine is None else form.affine(tensors, settings)
            if known is not None:
                return [affine(*known)]
            return [LayerStep(form, value.shape[-1], tensors, settings, value.name)]
        case nodes.DropoutNode(rate=rate):
            return [DropoutStep(rate)]
        case nodes.ColumnsNode(rest=rest):
            return [ColumnsStep(rest)]
        case nodes.ReshapeNode():
            return [ShapeStep(value.values[0].shape, value.shape, value.place)]
        case nodes.DequantizeNode():
            return []
        case nodes.QuantizeNode(format=form):
            # In float it is nothing; or, where the range begins at 0, a relu that its writer has left out.
            source = value.values[0]
            bare = isinstance(source.node, nodes.DenseNode | nodes.LayerNode) or source.operator == "Add"
            return [function("relu")] if bare and form.zero == np.iinfo(form.dtype).min else []
        case _:
            return None


def _sum(value: Value, half: bool, depth: int) -> tuple[list[Step], Value]:
    """Return a residual block: branches out of one value that come together here."""
    start = value.dominator
    assert start is not None
    if depth >= MOST_NESTED:
        raise UnknownError(f"residual blocks are nested more than {MOST_NESTED} deep")
    one, two = (steps_between(start, part, half, depth + 1) for part in value.values)
    if not one and not two:
        return [affine(scale=2.0)], start
    for steps, other in ((two, one), (one, two)):
        if not other:
            if start.shape != value.shape:
                break
            return [SumStep(_rows(steps, value), place=value.place)], start
    if start.shape != value.shape:
        for steps, other in ((two, one), (one, two)):
            last = other[0]
            if len(other) == 1 and isinstance(last, DenseStep) and last.activation is None:
                moved: list[Step] = [] if last.bias is None else [affine(shift=last.bias)]
                return [SumStep(_rows(tidy([*steps, *moved]), value), last.kernel, value.place)], start
    raise UnknownError(
        "the branches that it adds are no residual block: one of them must be the data itself, or, where the widths "
        "differ, the data through one linear layer"
    )


def _rows(steps: list[Step], value: Value) -> list[Step]:
    """Return a branch's steps; rows must keep their positions in it."""
    kept: list[Step] = []
    for step in steps:
        if isinstance(step, ShapeStep):
            if step.keeps_columns:
                continue
            raise UnknownError(
                f"a branch that it adds must keep the rows' shape, but changes it from {step.before} to {step.after}"
            )
        kept.append(step)
    return kept or [function("linear")]


# -- layers --------------------------------------------------------------------------------------------------------


def build_model(
    steps: list[Step], before: tuple[int, ...], after: tuple[int, ...], dtype: str, place: str
) -> Sequential:
    """Build the model of steps.

    Parameters
    ----------
    steps : list of Step
        Steps, in the order in which they run.
    before, after : tuple of int
        Shape of one row of data, and of one of the output.
    dtype : str
        "float32" or "float64".
    place : str
        The file's name for errors.

    Raises
    ------
    ValueError
        If the rows change their shape as no layer does.
    """
    shape = before or (1,)
    names: set[str] = set()
    made: list[tuple[Layer, dict[str, Array]]] = []
    now = shape
    for step in steps:
        if isinstance(step, ShapeStep):
            if step.keeps_columns:
                continue
            if len(step.after) != 1:
                raise ValueError(
                    f"{step.place}: it turns rows of shape {step.before} into {step.after}; layers only flatten rows"
                )
            made.append((Flatten(), {}))
            now = step.after
            continue
        layer, tensors = _layer(step, now, names)
        made.append((layer, tensors))
        now = layer.shape_after(now)
    wanted = after or (1,)
    if now != wanted and len(wanted) == 1:
        made.append((Flatten(), {}))
        now = wanted
    if now != wanted:
        raise ValueError(f"{place}: its output has rows of shape {wanted}, but as layers it gives {now}")
    if not made:
        made.append((Activation("linear"), {}))
    model = Sequential([Input(shape), *(layer for layer, _ in made)], dtype=dtype)
    parameters = model.parameters
    for layer, tensors in made:
        for name, array in tensors.items():
            with np.errstate(over="ignore"):
                parameters[f"{layer.name}/{name}"][...] = array
    return model


def _layer(step: Step, shape: tuple[int, ...], names: set[str]) -> tuple[Layer, dict[str, Array]]:
    """Return a layer, and its tensors by their names behind the layer's own."""
    if isinstance(step, DenseStep):
        tensors = {"kernel": step.kernel} | ({} if step.bias is None else {"bias": step.bias})
        units, use_bias = step.kernel.shape[1], step.bias is not None
        return Dense(units, step.activation, use_bias, name=layer_name(step.name, names)), tensors
    if isinstance(step, FunctionStep):
        return Activation(step.activation), {}
    if isinstance(step, AffineStep):
        if not step.by_column:
            raise ValueError(f"{step.place}: {step.by_column_only}")
        step = as_layer(step, shape[-1])
        return _layer_of(step, None)
    if isinstance(step, LayerStep):
        return _layer_of(step, layer_name(step.name, names))
    if isinstance(step, DropoutStep):
        return Dropout(step.rate), {}
    assert isinstance(step, SumStep)
    parts = []
    for inner in step.steps:
        layer, tensors = _layer(inner, shape, names)
        parts.append((layer, tensors))
        shape = layer.shape_after(shape)
    block = Residual([layer for layer, _ in parts])  # which gives them names
    named = {f"{layer.name}/{name}": array for layer, tensors in parts for name, array in tensors.items()}
    if step.projection is not None:
        named["projection/kernel"] = step.projection
    return block, named


def _layer_of(step: LayerStep, name: str | None) -> tuple[Layer, dict[str, Array]]:
    assert step.form.layer is not None
    layer, tensors = step.form.layer(step.tensors, step.settings, name)
    return layer, tensors


def as_layer(step: AffineStep, width: int) -> LayerStep:
    """Return an affine step of columns as a batch normalisation that does not learn.

    Parameters
    ----------
    step : AffineStep
        The same at all positions of a row.
    width : int
        Columns.
    """
    return LayerStep(batch_normalization.FORM, width, *batch_normalization.affine_parts(*step.over(width)))


def layer_name(weights: str, names: set[str]) -> str | None:
    """Return a layer's name by its weights' name; None where that does not say one.

    Parameters
    ----------
    weights : str
        Name of the weights in the file.
    names : set of str
        Names that are taken; the new one is added.
    """
    words = [word for word in re.split(r"[./:]+", weights) if word]
    named = False
    while len(words) > 1 and words[-1].lower() in _LAST_WORDS:
        words.pop()
        named = True
    name = re.sub(r"[^\w-]", "_", "_".join(words))[:64]
    if not named or not name or name.isdigit() or name in names:
        return None
    names.add(name)
    return name
