"""Models learn what they should, seeded: the whole of training at once."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nbdense as nb


def model_of(*layers, dtype="float32", seed=0):
    nb.set_random_seed(seed)
    return nb.Sequential(list(layers), dtype=dtype)


def test_xor():
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    model = model_of(nb.Dense(8, "tanh"), nb.Dense(1, "sigmoid"))
    model.compile(nb.Adam(0.05), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=200, verbose=0)
    loss, accuracy = model.evaluate(x, y)
    assert accuracy == 1 and loss < 0.05


def test_a_curve():
    x = np.linspace(-3, 3, 400)[:, None]
    y = np.sin(2 * x) + 0.3 * x
    model = model_of(nb.Dense(48, "gelu"), nb.Residual([nb.Dense(48, "gelu"), nb.Dense(48)]), nb.Dense(1))
    schedule = nb.CosineDecay(0.01, 60 * 13, warmup_target=0.01, warmup_steps=0)
    model.compile(nb.AdamW(schedule), "huber", metrics=["rmse", "r2_score"])
    model.fit(x, y, epochs=60, verbose=0)
    _, rmse, r2 = model.evaluate(x, y)
    assert rmse < 0.05 and r2 > 0.995


def test_digits():
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0)
    model = model_of(
        nb.Dense(96, kernel_initializer="he_normal"),
        nb.BatchNormalization(),
        nb.ReLU(),
        nb.Dropout(0.2),
        nb.Dense(10, "softmax"),
    )
    model.compile("adam", nb.SparseCategoricalCrossentropy(), metrics=["accuracy", "sparse_top_k_categorical_accuracy"])
    stop = nb.EarlyStopping(monitor="val_loss", patience=8, restore_best_weights=True)
    model.fit(x_train, y_train, epochs=40, verbose=0, validation_split=0.2, callbacks=[stop])
    _, accuracy, top_five = model.evaluate(x_test, y_test)
    assert accuracy > 0.965 and top_five > 0.99


def test_class_weights_raise_the_minoritys_recall():
    rng = np.random.default_rng(5)
    y = (rng.random(3000) < 0.05).astype(int)
    x = rng.normal(size=(3000, 6)) + 0.8 * y[:, None]
    recalls = {}
    for weights in (None, "balanced"):
        model = model_of(nb.Dense(16, "relu"), nb.Dense(1, "sigmoid"))
        model.compile("adam", "binary_crossentropy", metrics=["recall", "auc"])
        model.fit(x[:2000], y[:2000], epochs=15, verbose=0, class_weight=weights)
        recalls[weights] = model.evaluate(x[2000:], y[2000:], return_dict=True)
    assert recalls["balanced"]["recall"] > recalls[None]["recall"] + 0.2
    assert recalls["balanced"]["auc"] > 0.85


def test_autoencoder():
    """Through a bottleneck of 8, better than 8 principal components are at the same rows."""
    x = load_digits().data / 16
    train, held = x[:1400], x[1400:]
    model = model_of(
        nb.Dense(64, "silu"), nb.Dense(8, name="code"), nb.Dense(64, "silu"), nb.Dense(64), dtype="float32"
    )
    model.compile(nb.Adam(0.003), "mse")
    model.fit(train, train, epochs=60, verbose=0)
    mean = train.mean(axis=0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    flat = (held - mean) @ axes[:8].T @ axes[:8] + mean
    assert model.evaluate(held, held) < 0.85 * ((flat - held) ** 2).mean()
    assert model.upto("code").predict(held).shape == (len(held), 8)


def test_a_sequence_of_positions():
    """Dense on the last axis: each position of a row is judged by itself, with weights that all share."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 6, 4))
    y = (x[:, :, 0] * x[:, :, 1] > 0).astype(int)
    model = model_of(nb.Dense(32, "relu"), nb.LayerNormalization(), nb.Dense(2, "softmax"))
    model.compile(nb.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:300], y[:300], epochs=20, verbose=0)
    assert model.predict(x[300:]).shape == (100, 6, 2)
    assert model.evaluate(x[300:], y[300:])[1] > 0.93
