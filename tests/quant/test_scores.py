"""Scores of an evaluation set (x, y), by which accuracy_budget, sparsity_sweep and pruning_report judge models."""

import numpy as np
import pytest

from nbdense.layers import Dense, Input
from nbdense.losses import BinaryCrossentropy
from nbdense.models import Sequential
from nbdense.quant import pruning_report, quantize, sparsity_sweep


@pytest.mark.parametrize("logits", [True, False])
def test_classes_of_a_single_output(logits):
    """A logit stands for class 1 from 0 on, any other output from 0.5 on."""
    x = np.random.default_rng(0).uniform(-0.4, 0.4, (200, 1)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    model = Sequential([Input((1,)), Dense(1)])
    model.compile("sgd", BinaryCrossentropy(from_logits=True) if logits else "mse")
    model.set_weights([np.ones((1, 1)), np.zeros(1)])  # the output is x
    right = pytest.approx(1.0 if logits else 1 - y.mean())
    metric = quantize(model, x, accuracy_budget=0.05, evaluate=(x, y)).report("dict", timings=False)["model"]["metric"]
    assert metric["float"] == right and metric["quantized"] >= metric["float"] - 0.05
    assert sparsity_sweep(model, (x, y), [0.0], verbose=0).scores == [right]
    assert pruning_report(model, evaluate=(x, y), form="dict")["model"]["score"] == right
