"""The libraries themselves, where they are installed: `make test-frameworks`, or pytest -m frameworks."""

import os

import numpy as np
import pytest

import nbdense as nb

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore")]  # theirs are not ours


@pytest.fixture(scope="module")
def cases():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    from tests.export.frameworks.cases import cases

    return cases()


def test_outputs_agree(cases):
    taken = {name: case for name, case in cases.items() if not case.words}
    assert len(taken) > 80
    for name, case in taken.items():
        outputs = getattr(nb, case.function)(case.model, **case.options).predict(case.x)
        np.testing.assert_allclose(outputs, case.y, rtol=1e-5, atol=1e-5, err_msg=name)


def test_what_is_refused_is_named(cases):
    for case in cases.values():
        if case.words:
            with pytest.raises(ValueError, match=case.words):
                getattr(nb, case.function)(case.model, **case.options)


def test_weights_of_other_types():
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(20, 4)
    wanted = model(x).detach().numpy()
    double = nb.from_torch(model.double(), dtype="float64").predict(x.numpy())
    np.testing.assert_allclose(double, model(x.double()).detach().numpy(), rtol=1e-12)
    half = model.to(torch.bfloat16)
    np.testing.assert_allclose(nb.from_torch(half).predict(x.numpy()), half.float()(x).detach().numpy(), atol=1e-5)
    assert np.abs(wanted - half.float()(x).detach().numpy()).max() < 0.1


def test_the_golden_file_is_of_these(cases):
    from tests.export.frameworks.test_golden import PLAIN

    assert set(PLAIN) == set(cases)
