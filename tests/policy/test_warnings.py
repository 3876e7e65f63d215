"""Warnings point at the line of the user's that called the library, however deep they are found."""

import ast
import warnings

import numpy as np
import pytest

import nbdense as nb
from nbdense import activations, losses
from nbdense.layers import Dense, Input
from tests.support.source_tree import ROOT, library_modules

X = np.linspace(-1, 1, 24).reshape(8, 3)
HOT = np.eye(2)[np.arange(8) % 2]


def model(activation="softmax", loss="categorical_crossentropy"):
    made = nb.Sequential([Input((3,)), Dense(2, activation)])
    made.compile("adam", loss)
    return made


def interrupted():
    def stop(*said):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", stop)
        nb.MLPClassifier(verbose=True).fit(X, HOT[:, 0])


WARNINGS = {
    "loss: categorical_crossentropy after 'linear'": lambda: model("linear").fit(X, HOT, verbose=0),
    "targets: those of row 0 sum to 2": lambda: model().fit(X, 2 * HOT, verbose=0),
    "targets: those of row 0 sum to 3": lambda: model().fit(X, HOT, validation_data=(X, 3 * HOT), verbose=0),
    "targets: those of row 0 sum to 4": lambda: model().evaluate(X, 4 * HOT),
    "targets: those of row 0 sum to 5": lambda: model().train_on_batch(X, 5 * HOT),
    "targets: those of row 0 sum to 6": lambda: model().diagnose(X, 6 * HOT),
    "targets: those of row 0 sum to 7": lambda: model().importance(X, 7 * HOT),
    "callbacks: there is no 'val_loss' to monitor": lambda: model().fit(
        X, HOT, verbose=0, callbacks=[nb.EarlyStopping()]
    ),
    "activations: derivative(": lambda: activations.custom("cube", lambda z: z**3, lambda z: z**2),
    "losses: derivative(": lambda: losses.custom("half", lambda y, t: (y - t) ** 2, lambda y, t: y - t),
    "estimators: batch_size=99 is more": lambda: nb.MLPClassifier(batch_size=99, tol=9.0).fit(X, HOT[:, 0]),
    "estimators: Maximum iterations (2) reached": lambda: nb.MLPClassifier(max_iter=2).fit(X, HOT[:, 0]),
    "estimators: Training interrupted": interrupted,
}


@pytest.mark.parametrize("subject", WARNINGS)
def test_warnings_point_here(subject):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WARNINGS[subject]()
    words = subject.split(": ", 1)[1]
    assert [warning.filename for warning in caught if words in str(warning.message)] == [__file__]


def test_one_place_gives_warnings():
    """It knows whose line to name; a stacklevel elsewhere would be a guess."""
    offences = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for module, path in library_modules().items()
        if module != "nbdense._warn"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("warn", "warn_explicit")
    ]
    assert not offences, f"use nbdense._warn.warn: {', '.join(offences)}"
