"""Plots, on axes that only record: matplotlib is optional, and the tests do not install it."""

import sys
import types

import numpy as np
import pytest

from nbdense.callbacks import History


class FakeAxes:
    def __init__(self):
        self.curves, self.labels, self.legends = [], {}, 0

    def plot(self, x, y, label):
        self.curves.append((label, x, y))

    def set_xlabel(self, text):
        self.labels["x"] = text

    def set_ylabel(self, text):
        self.labels["y"] = text

    def legend(self):
        self.legends += 1


@pytest.fixture
def history():
    made = History()
    for epoch in range(2, 5):
        made.on_epoch_end(epoch, {"loss": 5.0 - epoch, "val_loss": 6.0 - epoch} | ({"mae": 1.0} if epoch > 3 else {}))
    return made


def test_plot_on_axes(history):
    ax = FakeAxes()
    assert history.plot("loss", ax) is ax
    assert ax.curves == [("training", [3, 4, 5], [3.0, 2.0, 1.0]), ("validation", [3, 4, 5], [4.0, 3.0, 2.0])]
    assert (ax.labels, ax.legends) == ({"x": "epoch", "y": "loss"}, 1)
    ax = FakeAxes()
    history.plot(ax=ax)
    assert [(label, x) for label, x, _ in ax.curves] == [("loss", [3, 4, 5]), ("val_loss", [3, 4, 5]), ("mae", [5])]
    assert ax.labels == {"x": "epoch"}


def test_plot_makes_a_figure(history, monkeypatch):
    """With a stand-in for matplotlib, which the tests do not install."""
    made = {}

    def subplots(rows, columns, figsize, squeeze):
        made["grid"] = np.array([[FakeAxes() for _ in range(columns)] for _ in range(rows)], object)
        made["options"] = (figsize, squeeze)
        return types.SimpleNamespace(tight_layout=lambda: made.setdefault("tight", True)), made["grid"]

    pyplot = types.ModuleType("matplotlib.pyplot")
    pyplot.subplots = subplots
    package = types.ModuleType("matplotlib")
    package.pyplot = pyplot
    monkeypatch.setitem(sys.modules, "matplotlib", package)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    axes = history.plot(["mae", "loss"])
    assert [(ax.labels["y"], len(ax.curves)) for ax in axes] == [("mae", 1), ("loss", 2)]
    assert made["options"] == ((10.0, 4.0), False) and made["tight"]


def test_plot_without_matplotlib(history, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install nbdense\[plot\]"):
        history.plot()


def test_nothing_to_plot(history):
    for names, words in (("accuracy", "nothing named 'accuracy' was reported; there are: loss, mae"), ([], "nothing")):
        with pytest.raises(ValueError, match=words):
            history.plot(names, FakeAxes())
    with pytest.raises(ValueError, match="nothing to draw"):
        History().plot()
