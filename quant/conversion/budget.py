"""A search for the layers that may be integers while the model stays as good as somebody asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense.engine.rows import DENSE
from nbdense.losses.base import THRESHOLD
from nbdense.metrics.collected import decision_threshold, predicted_classes
from nbdense.quant.conversion.assembly import Choice, assemble
from nbdense.quant.conversion.quantizer import Quantizer
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.scoring import compiled_of

Score = Callable[[Any], float]


def check(budget: float | None, evaluate: Any) -> None:
    """Refuse a budget without an evaluation, or the other way round.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    if (budget is None) != (evaluate is None):
        raise ValueError("quantize: accuracy_budget and evaluate go together: give both, or neither")
    if budget is not None:
        fits = isinstance(budget, int | float | np.number) and not isinstance(budget, bool)
        if not fits or not math.isfinite(budget) or budget < 0:
            raise ValueError(f"quantize: accuracy_budget must be a number of at least 0, got {budget!r}")
        score_of(evaluate)


def score_of(evaluate: Any, owner: str = "quantize") -> Score:
    """Return the function that scores something with ``predict``; of its values more is better.

    Parameters
    ----------
    evaluate : (x, y), or callable
        See `nbdense.quant.quantize`.
    owner : str
        What was called, for errors.

    Raises
    ------
    ValueError
        If it is none of these, the set is empty, or its rows are not as many.
    """
    if callable(evaluate):
        return lambda model: _number(owner, evaluate(model))
    if not (isinstance(evaluate, tuple | list) and len(evaluate) == 2):
        raise ValueError(f"{owner}: evaluate must be (x, y), or a function of a model that returns a score")
    x, y = evaluate[0], _checks.array_of(f"{owner}: y of evaluate", evaluate[1])
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(
            f"{owner}: evaluate must have as many rows of x as of y, at least one, got {len(x)} and {len(y)}"
        )
    return lambda model: _number(owner, score(np.asarray(model.predict(x)), y, owner, decision_threshold(model)))


def _number(owner: str, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{owner}: evaluate must return a finite score, got {number}")
    return number


def score(
    outputs: npt.NDArray[Any], y: npt.NDArray[Any], owner: str = "quantize", threshold: float = THRESHOLD
) -> float:
    """Return the share of right classes, or the coefficient of determination.

    Parameters
    ----------
    outputs : ndarray, (rows, n)
        Probabilities, logits or values.
    y : ndarray, (rows,), (rows, 1) or (rows, n)
        Class numbers or one-hot rows; else values.
    owner : str
        What was called, for errors.
    threshold : float
        From this on a single output stands for class 1.
    """
    columns = outputs.reshape(len(outputs), -1)
    classes = y.reshape(len(y), -1)
    whole = y.dtype.kind in "iub"
    if classes.shape[1] == 1 and whole and (columns.shape[1] > 1 or set(np.unique(classes)) <= {0, 1}):
        return float((predicted_classes(columns, threshold, at_threshold=1) == classes[:, 0]).mean())
    if classes.shape != columns.shape:
        raise ValueError(f"{owner}: evaluate's y of shape {y.shape} does not go with outputs of shape {outputs.shape}")
    if classes.shape[1] > 1 and ((classes == 0) | (classes == 1)).all() and (classes.sum(axis=1) == 1).all():
        return float((predicted_classes(columns) == classes.argmax(axis=1)).mean())
    values = classes.astype(np.float64)
    spread = np.square(values - values.mean(axis=0)).sum()
    error = np.square(columns - values).sum(dtype=np.float64)
    return float(1 - error / spread) if spread > 0 else float(-error / len(values))


def search(quantizer: Quantizer, model: Any, budget: float, evaluate: Any) -> tuple[QuantizedNetwork, dict[str, Any]]:
    """Find the network with the most integers that keeps the budget, by a greedy search.

    Each dense layer is tried alone, the others in float; in the order of what that costs, they get 8 bits, if they
    have 4, and then stay in float, until the budget is kept; then those that it is kept without are taken back.

    Parameters
    ----------
    quantizer : Quantizer
        What makes the networks.
    model : Sequential or Network
        The float model.
    budget : float
        Amount by which the score may be less than the float model's.
    evaluate : (x, y), or callable
        See `nbdense.quant.quantize`.

    Returns
    -------
    network : QuantizedNetwork
    findings : dict
        Findings for the report: "metric" (float, quantized, asked), and "layers": what each layer costs alone and why
        it is as it is, by name.

    Raises
    ------
    ValueError
        If the budget cannot be kept even with all dense layers in float.
    """
    rate = score_of(evaluate)
    base, compiled = rate(_predicting(model)), compiled_of(model)

    def cost(choices: Mapping[int, Choice]) -> float:
        return base - rate(QuantizedModel(assemble(quantizer, choices), compiled))

    dense = [number for number, step in enumerate(quantizer.steps) if step.row.kind is DENSE]
    choices: dict[int, Choice] = {}
    alone: dict[int, float] = {}
    total = cost(choices)
    if total > budget:
        alone = {i: cost({j: Choice(0) for j in dense if j != i}) for i in dense}
        order = sorted(dense, key=lambda i: -alone[i])
        for bits in (8, 0) if quantizer.options.bits < 8 else (0,):
            for i in order:
                if total > budget:
                    why = f"alone it costs {alone[i]:.4g}; with it the model lost {total:.4g}, more than {budget:g}"
                    choices[i] = Choice(bits, why)
                    total = cost(choices)
        if total > budget:
            raise ValueError(
                f"quantize: with all dense layers in float the score is still {total:.4g} below the float model's "
                f"{base:.4g}, and accuracy_budget is {budget:g}"
            )
        for i in [i for i in reversed(order) if i in choices]:
            fewer = {j: choice for j, choice in choices.items() if j != i}
            without = cost(fewer)
            if without <= budget:
                choices, total = fewer, without
    names = {i: quantizer.steps[i].row.name for i in dense}
    findings = {
        "metric": {"float": base, "quantized": base - total, "budget": budget},
        "layers": {
            names[i]: {
                **({"cost_alone": alone[i]} if i in alone else {}),
                **({"why": choices[i].why} if i in choices else {}),
            }
            for i in dense
        },
    }
    return assemble(quantizer, choices), findings


def _predicting(model: Any) -> Any:
    if not hasattr(model, "predict"):
        raise ValueError("quantize: accuracy_budget needs a model with predict, not a bare Network")
    return model
