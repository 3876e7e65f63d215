"""A siamese network with a contrastive loss: do two pictures show the same digit? One net sees both.

Hadsell, Chopra and LeCun 2006: pairs of a kind are pulled together, others pushed apart up to a margin. Both pictures
of a pair go through the net as two rows of one batch, so that backward adds up what the two say of the shared weights.
Pairs are called alike where their distance is below half the margin.

    python examples/siamese.py [--seed 0] [--steps 1500]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nbdense as nb

MARGIN = 1.0
PAIRS = 32  # a batch


def draw_pairs(rng: np.random.Generator, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of ``count`` pairs, (2, count), and whether they are of a kind: about half are."""
    first = rng.integers(0, len(labels), count)
    second = rng.integers(0, len(labels), count)
    for i in np.flatnonzero(rng.random(count) < 0.5):
        second[i] = rng.choice(np.flatnonzero(labels == labels[first[i]]))
    return np.stack([first, second]), labels[first] == labels[second]


def contrastive(codes: np.ndarray, alike: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean loss of pairs of codes, (2, pairs, n), and its derivative with respect to the codes.

    d^2 / 2 for those alike, max(margin - d, 0)^2 / 2 for the others, d their distance.
    """
    apart = codes[0] - codes[1]
    distance = np.sqrt((apart * apart).sum(axis=1) + 1e-12)
    short = np.maximum(MARGIN - distance, 0.0)
    loss = 0.5 * np.where(alike, distance**2, short**2).mean()
    slope = np.where(alike, distance, -short) / distance / len(alike)  # by d, over d
    gradient = slope[:, np.newaxis] * apart
    return float(loss), np.stack([gradient, -gradient])


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train; returns the last batches' mean loss and the share of 4000 pairs of unseen pictures that are told right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args(argv)

    nb.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=args.seed)

    net = nb.Sequential([nb.Input((64,)), nb.Dense(64, "relu"), nb.Dense(32, "relu"), nb.Dense(8)])
    net.compile(nb.Adam(2e-3), "mse")  # the loss is not used: the gradient is made above
    losses = []
    for _ in range(args.steps):
        pairs, alike = draw_pairs(rng, y, PAIRS)
        codes = net.forward(x[pairs.ravel()], training=True).reshape(2, PAIRS, -1)
        loss, gradient = contrastive(codes, alike)
        net.backward(gradient.reshape(2 * PAIRS, -1))
        net.apply_gradients()
        losses.append(loss)

    pairs, alike = draw_pairs(rng, y_test, 4000)
    codes = net.predict(x_test)[pairs]
    distance = np.sqrt(((codes[0] - codes[1]) ** 2).sum(axis=1))
    accuracy = float(((distance < MARGIN / 2) == alike).mean())
    loss = float(np.mean(losses[-100:]))
    print(f"{args.steps} steps: loss {loss:.4f}, {accuracy:.1%} of 4000 pairs of unseen digits told right")
    return {"loss": loss, "accuracy": accuracy}


if __name__ == "__main__":
    main()
