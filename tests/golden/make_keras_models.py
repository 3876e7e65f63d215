"""Write keras_models.npz: what Keras gives for the snippets of tests/support/keras_snippets.py, and their inputs.

Run from the repository's root where Keras 3 is installed: python -m tests.golden.make_keras_models
"""

import json
from pathlib import Path

import keras
import numpy as np

from tests.support.keras_snippets import SNIPPETS, data


def main():
    given = data()
    arrays = {f"data/{name}": value for name, value in given.items()}
    plain = {"keras": keras.__version__}
    for name, run in SNIPPETS.items():
        for key, value in run(keras, given).items():
            if isinstance(value, np.ndarray):
                arrays[f"{name}/{key}"] = value
            else:
                plain[f"{name}/{key}"] = json.loads(json.dumps(value, default=float))
    arrays["plain"] = np.array(json.dumps(plain, sort_keys=True))
    np.savez_compressed(Path(__file__).with_name("keras_models.npz"), **arrays)


if __name__ == "__main__":
    main()
