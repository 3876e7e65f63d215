"""Neighbouring steps as one: affine steps in the dense layers and norms beside them, activations in dense layers.

An affine step goes into a dense layer beside it, except where the data is far from zero: (x - mean) scale comes out
small, but x scale and mean scale would cancel (the note in `float_flavour`). There it stays, as a batch normalisation
that does not learn.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nbdense.export.graph.steps import (
    AffineStep,
    Array,
    ColumnsStep,
    DenseStep,
    Doubles,
    FunctionStep,
    LayerStep,
    ShapeStep,
    Step,
    function,
)
from nbdense.layers.forms import Tensors
from nbdense.network.folding import FAR_FROM_ZERO


def tidy(steps: list[Step]) -> list[Step]:
    """Return the same function in fewer steps: affine ones in dense layers and norms, activations in dense layers.

    Parameters
    ----------
    steps : list of Step
        Steps, in the order in which they run; they stay as they are.
    """
    kept: list[Step] = []
    for step in steps:
        for part in _columns(step, kept) if isinstance(step, ColumnsStep) else [step]:
            _append(kept, part)
    return kept


def _append(kept: list[Step], step: Step) -> None:
    last = kept[-1] if kept else None
    if isinstance(step, ShapeStep) and step.keeps_columns:  # nothing, to layers
        if isinstance(last, AffineStep):
            kept[-1] = _reshaped(last, step)
    elif isinstance(step, ShapeStep) and isinstance(last, AffineStep):
        kept.pop()
        _append(kept, step)
        _append(kept, _reshaped(last, step))
    elif isinstance(step, ShapeStep) and isinstance(last, ShapeStep):
        kept.pop()
        if last.before != step.after:
            _append(kept, dataclasses.replace(step, before=last.before))
    elif isinstance(step, AffineStep):
        _append_affine(kept, last, step)
    elif isinstance(step, DenseStep) and isinstance(last, AffineStep) and _goes_into(last, step):
        kept[-1] = _affine_then_dense(last, step)
    elif isinstance(step, DenseStep) and _is_columns(step) and isinstance(last, DenseStep) and not last.activation:
        bias = None if last.bias is None else last.bias @ step.kernel
        kept[-1] = dataclasses.replace(last, kernel=last.kernel @ step.kernel, bias=bias)
    elif isinstance(step, FunctionStep) and isinstance(last, DenseStep) and not last.activation:
        kept[-1] = dataclasses.replace(last, activation=step.activation)
    else:
        kept.append(step)


def _append_affine(kept: list[Step], last: Step | None, step: AffineStep) -> None:
    mean, scale, shift = step.parts
    if _is_identity(step):
        return
    if isinstance(last, AffineStep):
        with np.errstate(all="ignore"):
            joined = (last.mean, last.scale * scale, (last.shift - mean) * scale + shift)
        if (last.scale == 1).all() and not last.shift.any() and (scale == 1).all():  # only moved
            joined = (last.mean + mean - shift, last.scale, last.shift)
        kept[-1] = together = AffineStep(*joined, place=step.place or last.place)
        if _is_identity(together):
            kept.pop()
    elif isinstance(last, DenseStep) and not last.activation and step.by_column:
        mean, scale, shift = step.over(last.kernel.shape[1])
        bias = np.zeros(len(scale)) if last.bias is None else last.bias.astype(np.float64)
        bias = (bias - mean) * scale + shift
        kept[-1] = dataclasses.replace(last, kernel=_times(last.kernel, scale), bias=bias)
    elif isinstance(last, LayerStep) and step.by_column and (tensors := _absorbed(last, step)) is not None:
        kept[-1] = dataclasses.replace(last, tensors=tensors)
    else:
        kept.append(step)


def _absorbed(layer: LayerStep, step: AffineStep) -> Tensors | None:
    """Return a layer's tensors with the step done behind it; None where the layer cannot do it."""
    absorb = layer.form.absorb
    return None if absorb is None else absorb(layer.tensors, *step.over(layer.width))


def _is_identity(step: AffineStep) -> bool:
    return not step.mean.any() and bool((step.scale == 1).all()) and not step.shift.any()


def _times(kernel: Array, scale: Doubles) -> Array:
    """Return columns times a scale each; the same array where all scales are 1."""
    return kernel if (scale == 1).all() else kernel.astype(np.float64) * scale


def _reshaped(step: AffineStep, change: ShapeStep) -> AffineStep:
    """Return an affine step that stands before a change of shape as one behind it."""
    if all(part.size == 1 for part in step.parts) or (step.by_column and change.keeps_columns):
        return step
    mean, scale, shift = (np.broadcast_to(part, change.before).reshape(change.after) for part in step.parts)
    return AffineStep(mean, scale, shift, step.place)


def _goes_into(step: AffineStep, dense: DenseStep) -> bool:
    if not step.by_column:
        return False
    mean, scale, shift = step.over(dense.kernel.shape[0])
    with np.errstate(all="ignore"):
        return bool((np.abs(shift - mean * scale) <= FAR_FROM_ZERO).all() and np.isfinite(scale).all())


def _affine_then_dense(step: AffineStep, dense: DenseStep) -> DenseStep:
    mean, scale, shift = step.over(dense.kernel.shape[0])
    moved = shift - mean * scale
    kernel = dense.kernel.astype(np.float64)
    bias = dense.bias
    if moved.any():
        bias = moved @ kernel + (0.0 if dense.bias is None else dense.bias)
    return dataclasses.replace(dense, kernel=_times(kernel.T, scale).T, bias=bias)


def _columns(step: ColumnsStep, kept: list[Step]) -> list[Step]:
    """Return two columns of one: for sigmoid(z) the softmax of 0 and z, which is the same; else a product."""
    last = kept[-1] if kept else None
    activation = last.activation if isinstance(last, DenseStep | FunctionStep) else None
    if activation is not None and activation.name == "sigmoid":
        if isinstance(last, DenseStep):
            kept[-1] = dataclasses.replace(last, activation=None)
        else:
            kept.pop()
        kernel = np.array([[0.0, 1.0]], np.float32)
        return [DenseStep(kernel[:, ::-1] if step.rest else kernel), function("softmax")]
    kernel, bias = np.array([[-1.0, 1.0]], np.float32), np.array([1.0, 0.0], np.float32)
    return [DenseStep(kernel[:, ::-1], bias[::-1]) if step.rest else DenseStep(kernel, bias)]


def _is_columns(step: DenseStep) -> bool:
    """Tell whether a step only puts a column beside zeros: the product with it is exact."""
    return step.kernel.shape == (1, 2) and step.bias is None and sorted(step.kernel[0].tolist()) == [0.0, 1.0]
