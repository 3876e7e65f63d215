"""The tables that things show: at a prompt, and in a notebook that nbclient runs."""

import html.parser
import os
import sys

import numpy as np
import pytest

import nbdense as nb
from nbdense._tables import Table
from nbdense.callbacks import History
from nbdense.inspection.confusion import confusion_matrix
from nbdense.quant.pruning.sweep import SparsitySweep

NOTEBOOK = [
    """
import numpy as np, pandas as pd
import nbdense as nb
from nbdense.quant import sparsity_sweep
from nbdense.inspection.confusion import confusion_matrix
nb.set_random_seed(0)
x = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), columns=["age", "<income>", "debt & more"])
y = (x["age"] > 0).astype(int) + (x["<income>"] > 0)
model = nb.Sequential([nb.Input((3,)), nb.Dense(8, "relu"), nb.Dense(3, "softmax")], name="<risk>")
model.compile(nb.Adam(nb.CosineDecay(0.01, 100)), "sparse_categorical_crossentropy", ["accuracy"])
""",
    "history = model.fit(x, y, epochs=2, verbose=1)",
    "sweep = sparsity_sweep(model, (x, y), [0.5])",
    "model",
    "history",
    "model.optimizer",
    "small = nb.quantize(model, x); small",
    "nb.sparsify(nb.prune(model, 0.5), choice='1x1')",
    "model.importance(x, y, repeats=1)",
    "model.diagnose(x, y)",
    "nb.compare(model, small, x)",
    "sweep",
    "confusion_matrix(small, x, y, ['none', 'one', 'both'])",
]
# What the table of each cell that ends in a thing has in it, escaped.
TABLES = {
    "model": ["&lt;risk&gt;", "<th>Parameters</th>", "dense (Dense)", "Total parameters: 59 (236 B)"],
    "history": ["<th>loss</th>", "<th>accuracy</th>", "<td>2</td>"],
    "model.optimizer": ["Adam", "beta_1", "0.999", "CosineDecay(initial_learning_rate=0.01"],
    "small = nb.quantize(model, x); small": ["Quantized model: static, weights of 8 bits", "dense_1 (dense)"],
    "nb.sparsify(nb.prune(model, 0.5), choice='1x1')": ["1x1", "weights are not zero"],
    "model.importance(x, y, repeats=1)": ["worse by", ">&lt;income&gt;</td>", "debt &amp; more"],
    "model.diagnose(x, y)": ["|grad|", "dense (relu)"],
    "nb.compare(model, small, x)": ["SQNR dB", "most is lost in"],
    "sweep": ["50.00%"],
    "confusion_matrix(small, x, y, ['none', 'one', 'both'])": ["as both", "of 200 rows are right"],
}
WIDGET = "application/vnd.jupyter.widget-view+json"


class Parser(html.parser.HTMLParser):
    """Rows of cells; every tag must be closed, and be one that a table needs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.cell = [], [], None
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert tag in {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
        assert [name for name, _ in attrs] in ([], ["style"])
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Outputs of each cell, by its source; the kernel is a process with this one's environment."""
    import nbclient
    import nbformat

    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK])
    folder = tmp_path_factory.mktemp("notebook")
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return {cell.source: cell.outputs for cell in notebook.cells}


@pytest.mark.parametrize("source", TABLES)
def test_a_notebook_shows_tables(source, outputs):
    (output,) = outputs[source]
    shown = output["data"]["text/html"]
    assert [words for words in TABLES[source] if words not in shown] == []
    assert "<script" not in shown and Parser(shown).rows
    assert output["data"]["text/plain"] and "object at 0x" not in output["data"]["text/plain"]


def test_progress_bars_are_jupyters(outputs):
    for source, count in (("history = model.fit(x, y, epochs=2, verbose=1)", 2), (NOTEBOOK[2], 1)):
        views = [output for output in outputs[source] if WIDGET in output.get("data", {})]
        assert len(views) == count
        assert not any("\r" in output.get("text", "") for output in outputs[source])  # no bar of text


def test_progress_bars_are_text_elsewhere(capsys):
    model = nb.Sequential([nb.Input((2,)), nb.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, 2)), np.zeros(8), verbose=1)
    assert "Epoch 1/1: 100%" in capsys.readouterr().out
    assert "ipywidgets" not in sys.modules


# -- by themselves --


def test_cells_are_escaped_and_tags_closed():
    shown = Table(("a<b", "c"), [("<script>alert(1)</script>", "&")], "t<", ["n>"]).html()
    assert Parser(shown).rows == [["a<b", "c"], ["<script>alert(1)</script>", "&"]]
    assert "<script" not in shown and "t&lt;" in shown and "n&gt;" in shown


def test_models_say_what_they_are():
    model = nb.Sequential([nb.Dense(4), nb.Residual([nb.Dense(4)])], name="net")
    assert repr(model) == "<Sequential 'net': 2 layers, not built, float32>"
    assert '<td style="text-align: left">Residual</td>' in model._repr_html_()
    model = nb.Sequential([nb.Input((3,)), nb.Dense(4), nb.Residual([nb.Dense(4)])], dtype="float64")
    wanted = "<Sequential 'sequential': 2 layers, (3,) -> (4,), 36 parameters, float64>"
    assert repr(model) == wanted and "Total" not in model._repr_html_()
    assert not model._train.built  # to look at it changes nothing
    model.build(3)
    assert repr(model) == wanted and "Total parameters: 36" in model._repr_html_()
    assert repr(nb.Sequential()) == "<Sequential 'sequential': 0 layers, not built, float32>"


def test_optimizers_say_what_they_are():
    text = repr(nb.SGD(0.1, momentum=0.9, clipnorm=1.0))
    assert text.startswith("SGD(learning_rate=0.1, momentum=0.9, ") and "clipnorm=1.0" in text
    again = eval(repr(nb.AdamW(nb.CosineDecay(0.01, 100))), vars(nb), {})  # noqa: S307
    assert again.get_config() == nb.AdamW(nb.CosineDecay(0.01, 100)).get_config()


def test_history_of_many_epochs_is_cut():
    history = History()
    assert repr(history) == "<History: 0 epochs>" and history.to_table().rows == []
    for epoch in range(40):
        history.on_epoch_end(epoch, {"loss": 1 / (epoch + 1)} | ({"val_loss": 2.0} if epoch > 35 else {}))
    assert repr(history) == "<History: 40 epochs; loss 0.025, val_loss 2>"
    rows = history.to_table().rows
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "...", *map(str, range(26, 41))]
    assert rows[-5] == ("36", "0.02778", "") and rows[-4] == ("37", "0.02703", "2")


def test_results_are_tables_at_a_prompt():
    sweep = SparsitySweep([0.5], [0.9], [12])
    assert repr(sweep) == str(sweep) and str(sweep).splitlines()[0].split() == ["sparsity", "parameters", "score"]


# -- confusion --


class Fixed:
    def __init__(self, outputs, **attributes):
        self.outputs = np.array(outputs)
        vars(self).update(attributes)

    def predict(self, x):
        return self.outputs


def test_confusion_has_the_classes_names():
    model = Fixed(np.eye(3)[[0, 1, 1, 2, 2, 2]], class_names=["a", "b", "c"])
    found = confusion_matrix(model, None, [0, 0, 1, 2, 2, 1])
    np.testing.assert_array_equal(found.counts, [[1, 1, 0], [0, 1, 1], [0, 0, 2]])
    assert found.class_names == ("a", "b", "c") and found.accuracy == pytest.approx(4 / 6)
    np.testing.assert_array_equal(confusion_matrix(model, None, np.eye(3)[[0, 0, 1, 2, 2, 1]]).counts, found.counts)
    one = confusion_matrix(Fixed([[0.2], [0.5], [0.9]]), None, [0, 0, 1])
    np.testing.assert_array_equal(one.counts, [[1, 1], [0, 1]])
    assert one.class_names == ("0", "1")
    for y, names, words in (
        ([0, 0, 3], None, r"3 class numbers in 0\.\.1"),
        ([0, 0, 1], ["a"], "must be 2 names, got 1"),
    ):
        with pytest.raises(ValueError, match=words):
            confusion_matrix(Fixed([[0.2], [0.5], [0.9]]), None, y, names)


def test_confusion_of_labels_is_refused():
    with pytest.raises(ValueError, match=r"Fixed.predict must give a row of outputs for each row, got shape \(2,\)"):
        confusion_matrix(Fixed(["a", "b"]), None, [0, 1])


def test_confusion_of_logits():
    """A logit stands for class 1 from 0 on, in the float model and in what it becomes."""
    x, y = np.float32([[-2.0], [-0.1], [0.1], [0.4], [2.0]]), [0, 0, 1, 1, 0]
    model = nb.Sequential([nb.Input((1,)), nb.Dense(1)])
    model.compile("sgd", nb.losses.BinaryCrossentropy(from_logits=True))
    model.set_weights([np.ones((1, 1)), np.zeros(1)])  # the output is x
    for each in (model, nb.quantize(model, x), nb.sparsify(nb.quantize(model, x))):
        np.testing.assert_array_equal(confusion_matrix(each, x, y).counts, [[2, 1], [0, 2]])


def test_confusion_is_drawn_with_names():
    import matplotlib as mpl

    mpl.use("Agg")
    ax = confusion_matrix(Fixed(np.eye(2)), None, [0, 1], ["no", "yes"]).plot()
    labels = ([label.get_text() for label in axis.get_ticklabels()] for axis in (ax.xaxis, ax.yaxis))
    assert [*labels] == [["no", "yes"], ["no", "yes"]]
    assert [text.get_text() for text in ax.texts] == ["1", "0", "0", "1"]
    ax.figure.clear()
