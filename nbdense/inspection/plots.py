"""Plots, where matplotlib is installed: it is imported when a figure is to be made, not before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbdense.training.state import Model


def pyplot() -> Any:
    """Import and return matplotlib.pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed; it says how to get it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install nbdense[plot]") from error
    return plt


def new_axes(ax: Any = None) -> Any:
    """Return ``ax``, or the axes of a new figure."""
    return pyplot().subplots(layout="constrained")[1] if ax is None else ax


def label_places(ax: Any, names: Sequence[str], first: int = 0) -> None:
    """Write names below the places ``first``, first + 1, ... of an axis."""
    ax.set_xticks(range(first, first + len(names)), names, rotation=45, ha="right", rotation_mode="anchor")


def plot_history(
    epochs: Sequence[int],
    history: Mapping[str, Sequence[float]],
    metrics: str | Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Draw curves over the epochs, counted from 1; `nbdense.callbacks.History.plot` says more.

    Parameters
    ----------
    epochs : sequence of int
        Epoch numbers from 0.
    history : mapping of str to sequence of float
        A value an epoch; the last epochs' where there are fewer.
    metrics : str or sequence of str, optional
        Names without ``val_``; all by default.
    ax : matplotlib Axes, optional
        Takes all curves.

    Returns
    -------
    Axes, or ndarray of Axes, (names,)
        ``ax``, or one for each name.
    """
    reported = list(dict.fromkeys(name.removeprefix("val_") for name in history))
    names = reported if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    if not names:
        raise ValueError("plot: there is nothing to draw; fit the model for an epoch, or name a metric")
    for name in names:
        if name not in reported:
            raise ValueError(f"plot: nothing named {name!r} was reported; there are: {', '.join(reported)}")
    if ax is not None:
        for name in names:
            _draw(ax, name, epochs, history, len(names) > 1)
        return ax
    figure, grid = pyplot().subplots(1, len(names), figsize=(5.0 * len(names), 4.0), squeeze=False)
    for name, place in zip(names, grid[0], strict=True):
        _draw(place, name, epochs, history, False)
    figure.tight_layout()
    return grid[0]


def _draw(ax: Any, name: str, epochs: Sequence[int], history: Mapping[str, Sequence[float]], shared: bool) -> None:
    """Draw one name's curves on ``ax``; where it is shared, the legend says the name instead of the axis."""
    for key, kind in ((name, "training"), (f"val_{name}", "validation")):
        if key in history:
            values = list(history[key])
            numbers = [epoch + 1 for epoch in epochs[len(epochs) - len(values) :]]
            ax.plot(numbers, values, label=key if shared else kind)
    ax.set_xlabel("epoch")
    if not shared:
        ax.set_ylabel(name)
    ax.legend()


def plot_weights(model: Model, ax: Any = None) -> Any:
    """Draw the spread of each parameter tensor: a box from quartile to quartile, whiskers to the extremes.

    Parameters
    ----------
    model : Sequential
        What is finite of its parameters is drawn.
    ax : matplotlib Axes, optional
        Axes to draw on; by default a new figure.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    ax = new_axes(ax)
    boxes = []
    for name, view in model.network.tensors().items():
        values = view[np.isfinite(view)]
        if values.size:
            low, q1, median, q3, high = np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0)).tolist()
            boxes.append({"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "label": name})
    ax.bxp(boxes, showfliers=False)
    label_places(ax, [str(box["label"]) for box in boxes], first=1)
    ax.set_ylabel("parameter")
    ax.set_title(f"Parameters of {model.name}")
    return ax
