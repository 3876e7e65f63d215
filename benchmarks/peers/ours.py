"""nbdense, as its README says to use it."""

from __future__ import annotations

from benchmarks.cases import LEARNING_RATE, Weights
from benchmarks.peers import Array


def make_model(weights: Weights):  # type: ignore[no-untyped-def]
    """Return a model of these weights."""
    import nbdense as nb

    model = nb.Sequential([nb.Input((len(weights[0][0]),))])
    for kernel, _ in weights[:-1]:
        model.add(nb.Dense(kernel.shape[1], "relu"))
    model.add(nb.Dense(weights[-1][0].shape[1], "softmax"))
    model.set_weights([array for pair in weights for array in pair])
    return model


class Nbdense:
    """nbdense, through ``fit`` and ``predict``."""

    def __init__(self, threads: int) -> None:
        import nbdense as nb

        nb.set_num_threads(threads)

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self._x, self._y, self._batch = x, y, batch
        self._model = make_model(weights)
        self.predict = self._model.predict
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        import nbdense as nb

        self._model.set_weights([array for pair in weights for array in pair])
        self._model.compile(nb.Adam(LEARNING_RATE), "sparse_categorical_crossentropy")

    def step(self) -> float:
        rows = slice(self._batch)
        history = self._model.fit(self._x[rows], self._y[rows], self._batch, verbose=0, shuffle=False)
        return float(history.history["loss"][0])

    def epochs(self, count: int) -> None:
        self._model.fit(self._x, self._y, self._batch, epochs=count, verbose=0)
