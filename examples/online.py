"""Online learning: rows come one by one, each is predicted before it is learned, and what is to be learned drifts.

The stream is the rotating hyperplane of Hulten, Spencer and Domingos 2001: points of a cube, which a plane through its
middle parts in two classes, and the plane turns. A model that has learned the first rows and stops is soon guessing;
`predict_one` and `learn_one` keep up. At the end stands how many rows are predicted and learned in a second, and, where
torch is installed, how many torch takes.

    python examples/online.py [--seed 0] [--rows 20000] [--alone]
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

import nbdense as nb

INPUTS, TURN = 4, 20_000  # rows that half a turn of the plane takes
FIRST, TIMED = 2_000, 2_000  # rows that are learned before anything is counted; that are timed at the end


def stream(rng: np.random.Generator, rows: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield points, and the side of the plane that each lies on."""
    for i in range(rows):
        x = rng.uniform(-1.0, 1.0, INPUTS).astype(np.float32)
        angle = math.pi * i / TURN
        yield x, int(math.cos(angle) * (x[0] + x[2]) + math.sin(angle) * (x[1] - x[3]) > 0.0)


def make_model() -> nb.Sequential:
    """Make a small classifier of two classes."""
    model = nb.Sequential([nb.Input((INPUTS,)), nb.Dense(64, "relu"), nb.Dense(64, "relu"), nb.Dense(2, "softmax")])
    model.compile(nb.Adam(1e-3), "sparse_categorical_crossentropy")
    return model


def learn(model: nb.Sequential, x: np.ndarray, y: int) -> int:
    """Predict the class of a row, then learn it; return what was predicted."""
    predicted = int(model.predict_one(x).argmax())
    model.learn_one(x, y)
    return predicted


def learn_in_torch() -> Callable[[np.ndarray, int], int]:
    """Return the same of the same network in torch."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(INPUTS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer, loss = torch.optim.Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss()

    def learn(x: np.ndarray, y: int) -> int:
        row = torch.from_numpy(x)[None]
        with torch.no_grad():
            predicted = int(model(row).argmax())
        optimizer.zero_grad()
        loss(model(row), torch.tensor([y])).backward()
        optimizer.step()
        return predicted

    return learn


def rows_per_second(step: Callable[[np.ndarray, int], int], rows: Sequence[tuple[np.ndarray, int]]) -> float:
    """Return how many rows are predicted and learned in a second."""
    started = time.perf_counter()
    for x, y in rows:
        step(x, y)
    return len(rows) / (time.perf_counter() - started)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Predict and learn a stream; return the share that was right, that of a model that had stopped, and the speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--alone", action="store_true", help="leave torch out, though it is installed")
    args = parser.parse_args(argv)

    nb.set_random_seed(args.seed)
    rows = list(stream(np.random.default_rng(args.seed), args.rows))
    learning = make_model()
    for x, y in rows[:FIRST]:
        learning.learn_one(x, y)
    stopped = copy.deepcopy(learning)
    right = stopped_right = 0
    for x, y in rows[FIRST:]:
        stopped_right += int(stopped.predict_one(x).argmax()) == y
        right += learn(learning, x, y) == y
    count = len(rows) - FIRST
    print(
        f"right before they were learned: {right / count:.1%}; by a model that had stopped: {stopped_right / count:.1%}"
    )
    speed = rows_per_second(partial(learn, learning), rows[-TIMED:])
    print(f"{speed:,.0f} rows predicted and learned a second")
    if not args.alone and importlib.util.find_spec("torch"):
        print(f"{rows_per_second(learn_in_torch(), rows[-TIMED:]):,.0f} in torch")
    return {"accuracy": right / count, "stopped": stopped_right / count, "rows_per_second": speed}


if __name__ == "__main__":
    main()
