"""Code of Keras's users, with the library changed, gives what Keras gave; tests/golden has its values."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nbdense import constraints, layers, models, optimizers
from tests.support.keras_snippets import COVERED, SNIPPETS

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "keras_models.npz")
PLAIN = json.loads(str(GOLDEN["plain"]))
LIBRARY = SimpleNamespace(
    Sequential=models.Sequential, layers=layers, models=models, optimizers=optimizers, constraints=constraints
)


@pytest.mark.filterwarnings("ignore:.*model files are safetensors whatever the suffix")
@pytest.mark.parametrize("name", SNIPPETS)
def test_as_keras(name):
    data = {key.removeprefix("data/"): GOLDEN[key] for key in GOLDEN.files if key.startswith("data/")}
    results = SNIPPETS[name](LIBRARY, data)
    expected = {key for key in [*GOLDEN.files, *PLAIN] if key.startswith(f"{name}/")}
    assert {f"{name}/{key}" for key in results} == expected
    for key, value in results.items():
        if isinstance(value, np.ndarray):
            wanted = GOLDEN[f"{name}/{key}"]
            assert (value.shape, value.dtype) == (wanted.shape, wanted.dtype)
            np.testing.assert_allclose(value, wanted, rtol=2e-4, atol=2e-5, err_msg=key)
        else:
            wanted = PLAIN[f"{name}/{key}"]
            if isinstance(wanted, float) or (isinstance(wanted, list) and isinstance(wanted[0], float)):
                np.testing.assert_allclose(value, wanted, rtol=2e-4, err_msg=key)
            else:
                assert value == wanted, key


def test_the_list_of_names_is_long():
    assert sum(len(names) for names in COVERED.values()) >= 55
