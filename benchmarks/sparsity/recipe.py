"""Stages in which networks are trained, pruned, quantized and compressed; limits, and published figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.mnist import Rows

DENSE = "dense"


@dataclass(frozen=True)
class Recipe:
    """The way in which all seeds are trained: settled on held-back training rows."""

    widths: tuple[int, ...] = (784, 300, 100, 10)
    batch: int = 128
    momentum: float = 0.999  # of the averages of weights, which each stage ends with
    kept: tuple[float, ...] = (0.765, 0.207, 0.028)  # each layer's share of the weights that are kept
    pruned_by: float = 0.4  # of a stage's steps: the rest are for what is kept
    frequency: int = 50  # steps between two prunings


@dataclass(frozen=True)
class Stage:
    """A network of the table, made of the one before.

    ``factor``: how many times fewer parameters other than zero than the dense network has, biases counted. ``rate``,
    ``decay``: of AdamW, whose rate falls to 0 by a cosine. ``dropout``: of inputs and of hidden units. ``allowed``: the
    most that the mean error may be. ``quantized``: the bits of weights of a static integer model, with ``aware_epochs``
    of quantization-aware training; its compressed file may have ``bytes_allowed``.
    """

    title: str
    factor: float
    epochs: int
    rate: float
    decay: float
    dropout: tuple[float, float]
    allowed: float | None = None
    at_most_dense: bool = False
    quantized: int = 0
    aware_epochs: int = 0
    aware_rate: float = 0.0
    bytes_allowed: int | None = None


STAGES = {
    DENSE: Stage("dense", 1, 30, 1e-3, 0.01, (0.1, 0.2)),
    "12x": Stage("12 times fewer weights", 12, 50, 2e-3, 0.1, (0.1, 0.2), allowed=1.60, at_most_dense=True),
    "file": Stage(
        "20 times fewer, int8, compressed",
        20,
        16,
        2e-3,
        0.1,
        (0.05, 0.05),
        allowed=1.58,
        quantized=8,
        aware_epochs=3,
        aware_rate=2e-4,
        bytes_allowed=27_000,
    ),
    "40x": Stage("40 times fewer weights", 40, 22, 5e-3, 0.2, (0.0, 0.0), allowed=1.90),
    "56x": Stage("56 times fewer weights", 56, 30, 5e-3, 0.1, (0.0, 0.0), allowed=1.99),
}

# Of the same network on MNIST, as published: error in percent, and parameters that are kept or bytes.
PUBLISHED = (
    ("Han et al. 2015, dense", 1.64, "267K"),
    ("Han et al. 2015, pruned", 1.59, "12x fewer"),
    ("Deep Compression (Han et al. 2016)", 1.58, "27 KB"),
    ("Dynamic network surgery (Guo et al. 2016)", 1.99, "56x fewer"),
    ("Sparse variational dropout (Molchanov et al. 2017)", 1.92, "68x fewer"),
)


@dataclass(frozen=True)
class Answer:
    """A network of a stage: error in percent, parameters that are not zero, and bytes of its compressed file."""

    error: float
    parameters: int
    file_bytes: int


def answers(recipe: Recipe, stages: dict[str, Stage], rows: Rows, seed: int) -> Iterator[tuple[str, Answer]]:
    """Yield what comes out of each stage, one after the other."""
    import nbdense as nb

    nb.set_random_seed(seed)
    model = network(recipe, stages[DENSE].dropout)
    for name, stage in stages.items():
        model = trained(recipe, stage, model, rows)
        yield name, answer(quantized(recipe, stage, model, rows) if stage.quantized else model, model, rows)


def network(recipe: Recipe, dropout: tuple[float, float]) -> Any:
    """Return a network of the recipe's widths, not trained."""
    import nbdense as nb

    *hidden, n_out = recipe.widths[1:]
    layers: list[Any] = [nb.Input(recipe.widths[:1]), nb.Dropout(dropout[0])]
    for number, width in enumerate(hidden, 1):
        layers += [nb.Dense(width, "relu", name=f"fc{number}"), nb.Dropout(dropout[1])]
    return nb.Sequential([*layers, nb.Dense(n_out, "softmax", name=f"fc{len(hidden) + 1}")])


def trained(recipe: Recipe, stage: Stage, model: Any, rows: Rows) -> Any:
    """Return a model trained further, and pruned in the meantime as the stage says."""
    other, weights = network(recipe, stage.dropout), model.get_weights()
    other.seed = model.seed
    other.set_weights(weights)
    other.network.take_mask(model.network)
    steps = -(-len(rows.x) // recipe.batch) * stage.epochs
    callbacks = schedules(recipe, stage, other, int(recipe.pruned_by * steps)) if stage.factor > 1 else []
    fit(recipe, other, rows, stage.epochs, stage.rate, stage.decay, callbacks)
    return other


def schedules(recipe: Recipe, stage: Stage, model: Any, end: int) -> list[Any]:
    """Return a schedule for each layer, from the weights that it has to those that it keeps."""
    from nbdense.quant import PruningSchedule

    kernels = {
        name.removesuffix("/kernel"): view for name, view in model.parameters.items() if name.endswith("/kernel")
    }
    made = []
    for (name, kernel), count in zip(kernels.items(), weights_kept(recipe, stage.factor), strict=True):
        others = [other for other in kernels if other != name]
        now = float(np.mean(kernel == 0))
        made.append(PruningSchedule(1 - count / kernel.size, now, 0, end, recipe.frequency, exempt=others))
    return made


def weights_kept(recipe: Recipe, factor: float) -> list[int]:
    """Return each layer's weights that leave the total of parameters over ``factor``, biases counted.

    A layer that would keep more than it has keeps all, and the first what is over.
    """
    pairs = list(zip(recipe.widths[:-1], recipe.widths[1:], strict=True))
    biases = sum(m for _, m in pairs)
    total = int((sum(n * m for n, m in pairs) + biases) / factor) - biases
    counts = [min(n * m, round(share * total)) for (n, m), share in zip(pairs, recipe.kept, strict=True)]
    return [total - sum(counts[1:]), *counts[1:]]


def fit(recipe: Recipe, model: Any, rows: Rows, epochs: int, rate: float, decay: float, callbacks: Any = ()) -> None:
    """Train a model; it ends with the averages of its weights."""
    import nbdense as nb

    steps = -(-len(rows.x) // recipe.batch) * epochs
    optimizer = nb.AdamW(nb.CosineDecay(rate, steps), weight_decay=decay, use_ema=True, ema_momentum=recipe.momentum)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(rows.x, rows.y, batch_size=recipe.batch, epochs=epochs, verbose=0, callbacks=callbacks)


def quantized(recipe: Recipe, stage: Stage, model: Any, rows: Rows) -> Any:
    """Return the integer model of a pruned one, trained with the rounding and with its zeros held."""
    import nbdense as nb

    aware = nb.quantize_aware(model, rows.x[:10_000], bits=stage.quantized)
    fit(recipe, aware, rows, stage.aware_epochs, stage.aware_rate, stage.decay)
    return nb.quantize(aware)


def answer(made: Any, model: Any, rows: Rows) -> Answer:
    """Return what is reported of a model, float or quantized, as it comes back from its compressed file."""
    import nbdense as nb

    with TemporaryDirectory() as folder:
        path = Path(folder, "model")
        if made is model:
            made = network_without_training(model)
        made.save(path, compressed=True)
        loaded, size = nb.load_model(path), path.stat().st_size
    outputs = loaded.predict(rows.x_test)
    assert np.array_equal(outputs, made.predict(rows.x_test))
    wrong = 100 * float(np.mean(outputs.argmax(axis=-1) != rows.y_test))
    return Answer(wrong, sum(int((array != 0).sum()) for array in model.get_weights()), size)


def network_without_training(model: Any) -> Any:
    """Return the model without what its training needs, for its file."""
    import nbdense as nb

    layers = [layer.copy() for layer in model.layers if not isinstance(layer, nb.Dropout)]
    other = nb.Sequential([nb.Input(model.input_shape[1:]), *layers])
    other.set_weights(model.get_weights())
    other.network.take_mask(model.network)
    return other
