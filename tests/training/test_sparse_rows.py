"""Sparse inputs of a model: what it makes of them is, to the last bit, what it makes of the dense ones."""

import warnings
from functools import partial

import numpy as np
import pytest
from scipy.sparse import coo_array, csc_array, csr_array, csr_matrix

import nbdense as nb
from nbdense.training import sparse_rows
from nbdense.training.sparse_rows import epoch_order

RNG = np.random.default_rng(3)
ROWS, COLUMNS = 150, 20
DENSE = np.where(RNG.random((ROWS, COLUMNS)) < 0.2, RNG.normal(size=(ROWS, COLUMNS)), 0.0)
CLASSES = DENSE[:, :3].argmax(axis=1)
WEIGHTS = RNG.uniform(0.5, 2.0, ROWS)


def twice_stored():
    """Return the matrix with each number in two parts, in an order of columns that is not theirs."""
    parts = csr_array(DENSE)
    counts = 2 * np.diff(parts.indptr)
    numbers, columns = [], []
    for row in DENSE:
        places = np.flatnonzero(row)[::-1]
        numbers += [*(0.75 * row[places]), *(row[places] - 0.75 * row[places])]
        columns += [*places, *places]
    return csr_array((numbers, columns, np.concatenate([[0], np.cumsum(counts)])), DENSE.shape)


FORMATS = {
    "csr_array": csr_array(DENSE),
    "csr_matrix": csr_matrix(DENSE),
    "csc": csc_array(DENSE),
    "coo": coo_array(DENSE),
    "float32": csr_array(DENSE.astype(np.float32)),
    "int8": csr_array((8 * DENSE).astype(np.int8)),
    "bool": csr_array(DENSE != 0),
    "duplicates": twice_stored(),
}


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(sparse_rows, "ELEMENTS", 3 * 16 * COLUMNS)  # three batches of 16


def compiled(metrics=("accuracy", "auc"), **options):
    layers = [nb.Input((COLUMNS,)), nb.Dense(12, "relu"), nb.Dropout(0.2), nb.Dense(3, "softmax")]
    model = nb.Sequential(layers, **options)
    model.seed = 5
    model.compile(nb.Adam(0.01), "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


def fitted(x, y=CLASSES, **options):
    """Fit a model of batches of 16; return its history and weights."""
    model = compiled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of data that end before the steps
        history = model.fit(x, y, batch_size=16, verbose=0, **{"epochs": 3, **options}).history
    return history, model.get_weights()


def assert_same(one, other):
    assert one[0] == other[0]
    for mine, theirs in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("sparse", FORMATS.values(), ids=FORMATS)
def test_a_fit_and_what_it_predicts(sparse):
    dense, copy = sparse.toarray(), sparse.copy()
    assert_same(fitted(sparse), fitted(dense))
    model = compiled()
    np.testing.assert_array_equal(model.predict(sparse), model.predict(dense))
    assert model.evaluate(sparse, CLASSES) == model.evaluate(dense, CLASSES)
    assert (sparse.data == copy.data).all() and sparse.nnz == copy.nnz  # the user's own is as it was


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": False},
        {"validation_split": 0.25, "sample_weight": WEIGHTS},
        {"class_weight": "balanced"},
        {"steps_per_epoch": 4, "epochs": 7},  # ten steps are a pass
        {"steps_per_epoch": 4, "epochs": 7, "shuffle": False},
        {"steps_per_epoch": 12},
        {"validation_data": True},
        {"validation_data": True, "validation_steps": 2},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_of_a_fit(options):
    found = []
    for x in (csr_array(DENSE), DENSE):
        given = {**options, "validation_data": (x, CLASSES, WEIGHTS)} if "validation_data" in options else options
        found.append(fitted(x, **given))
    assert_same(*found)


def test_evaluations():
    model = compiled()
    for options in ({}, {"batch_size": 7}, {"steps": 2}, {"sample_weight": WEIGHTS}, {"return_dict": True}):
        assert model.evaluate(csr_array(DENSE), CLASSES, **options) == model.evaluate(DENSE, CLASSES, **options)


def test_predictions():
    model, x = compiled(), DENSE.copy()
    x[3, 4], x[70, 1], x[149, 0] = np.nan, np.inf, 1e300  # which is infinite in float32
    for options in ({}, {"steps": 2}, {"steps": 3, "batch_size": 5}, {"callbacks": [nb.Callback()]}):
        for sparse in (csr_array(x), coo_array(x)):
            np.testing.assert_array_equal(model.predict(sparse, **options), model.predict(x, **options))

    class EachBatch(nb.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            sizes.append(len(logs["outputs"]))

    sizes = []
    np.testing.assert_array_equal(model.predict(csr_array(x), batch_size=60, callbacks=[EachBatch()]), model.predict(x))
    assert sizes == [60, 60, 30]


def test_a_model_without_an_input_takes_its_width():
    model = nb.Sequential([nb.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(csc_array(DENSE), CLASSES, verbose=0)
    assert model.input_shape == (None, COLUMNS)


def test_single_batches_and_iterables_of_them():
    """A batch becomes dense as a whole."""
    found = []
    for x in (csr_array(DENSE), DENSE):
        batches = [(x[first : first + 50], CLASSES[first : first + 50]) for first in range(0, ROWS, 50)]
        model = compiled()
        numbers = [model.train_on_batch(*batches[0]), model.test_on_batch(*batches[1])]
        numbers.append(model.train_step(50)(*batches[2]))
        numbers.append(model.fit(partial(iter, batches), epochs=2, verbose=0).history)
        numbers.append(model.evaluate(iter(batches)))
        model.forward(x, training=True)
        model.backward(np.ones((ROWS, 3)))
        model.apply_gradients()
        outputs = [model(x), model.predict(iter(batches)), model.predict_on_batch(x)]
        found.append((numbers, [*model.get_weights(), *outputs]))
    assert_same(*found)


def test_targets_come_with_them():
    with pytest.raises(ValueError, match="y: there are no targets"):
        compiled().fit(csr_array(DENSE), verbose=0)
    with pytest.raises(ValueError, match=f"y: expected a target for each of the {ROWS} rows"):
        compiled().fit(csr_array(DENSE), CLASSES[:9], verbose=0)


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 1000])
def test_order_is_the_engines(rows):
    """A model that learns nothing, and tells the order in which it is shown row numbers by its batches' losses."""
    numbers = np.arange(rows, dtype=np.float64)[:, np.newaxis]
    model = nb.Sequential([nb.Input((1,)), nb.Dense(1, kernel_initializer="zeros")], dtype="float64")
    model.compile(nb.SGD(0.0), "mae")
    model.seed = 17
    seen = []
    for epoch in range(2):
        order = epoch_order(17, epoch, rows)
        assert sorted(order) == list(range(rows))
        seen.append(order.tolist())

    class Watch(nb.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.sum = 0.0

        def on_train_batch_end(self, batch, logs=None):
            mean = logs["loss"] * (batch + 1)
            assert round(mean - self.sum) == seen[self.model.epochs_trained][batch]
            self.sum = mean

    model.fit(numbers, numbers, batch_size=1, epochs=2, verbose=0, callbacks=[Watch()])
