"""An autoencoder of digits with a named bottleneck, whose encoder is cut off with ``model.upto(name)``.

64 pixels go through 8 numbers and come back. The encoder is a model of its own, with copies of the weights: it
predicts, is saved and exported like any other. What the codes are worth is measured twice: by the error of the
pictures that come back, beside that of a principal component analysis with as many numbers (the best linear
autoencoder, Baldi and Hornik 1989), and by how many digits their nearest neighbour among the codes names rightly.

    python examples/autoencoder.py [--seed 0] [--epochs 60]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import nbdense as nb

CODE = 8


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train; returns the mean squared errors on unseen digits and the accuracy of the codes' nearest neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args(argv)

    nb.set_random_seed(args.seed)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=args.seed)

    model = nb.Sequential([nb.Input((64,)), nb.Dense(64, "relu"), nb.Dense(CODE, name="code")])
    model.add(nb.Dense(64, "relu"))
    model.add(nb.Dense(64, "sigmoid"))
    model.compile(nb.Adam(3e-3), "mse")
    model.fit(x, x, batch_size=32, epochs=args.epochs, verbose=0)
    encoder = model.upto("code")

    error = float(model.evaluate(x_test, x_test))
    linear = PCA(CODE, random_state=args.seed).fit(x)
    linear_error = float(np.mean((linear.inverse_transform(linear.transform(x_test)) - x_test) ** 2))
    neighbour = KNeighborsClassifier(1).fit(encoder.predict(x), y)
    accuracy = float(neighbour.score(encoder.predict(x_test), y_test))
    print(f"squared error {error:.4f}, of {CODE} principal components {linear_error:.4f}; ", end="")
    print(f"{accuracy:.1%} of unseen digits named by their nearest code")
    return {"error": error, "linear_error": linear_error, "accuracy": accuracy}


if __name__ == "__main__":
    main()
