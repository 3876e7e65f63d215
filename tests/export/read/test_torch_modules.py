"""Every module of torch.nn that a dense network can have: imported, trained on, quantized, and exported again.

tests/golden/make_torch_modules.py wrote the files, by torch's two exporters.
"""

import numpy as np
import pytest

from nbdense import set_random_seed
from nbdense.export import from_onnx, to_onnx, verify_onnx
from nbdense.quant import quantize
from tests.support.source_tree import ROOT

GOLDEN = dict(np.load(ROOT / "tests" / "golden" / "torch_modules.npz"))
X = GOLDEN["x"]
KEYS = [key for key in GOLDEN if key != "x" and not key.endswith("/y")]
TAKEN = [key for key in KEYS if not key.startswith("refused")]
# What a module comes back as: the activation of the first dense layer; layers of their own for others.
ACTIVATIONS = {
    "CELU": ("celu", 0.5),
    "ELU": ("elu", 0.7),
    "GELU": ("gelu", 0.0),
    "GELU of tanh": ("gelu_tanh", 0.0),
    "Hardshrink": ("hard_shrink", 0.4),
    "Hardsigmoid": ("hard_sigmoid", 0.0),
    "Hardswish": ("hard_swish", 0.0),
    "Hardtanh": ("hard_tanh", (-0.5, 2.0)),
    "LeakyReLU": ("leaky_relu", 0.2),
    "LeakyReLU of negative slope": ("thresholded_relu", (0.0, -0.1, np.inf)),
    "LogSigmoid": ("log_sigmoid", 0.0),
    "LogSoftmax": ("log_softmax", 0.0),
    "Mish": ("mish", 0.0),
    "ReLU": ("relu", 0.0),
    "ReLU6": ("relu6", 6.0),
    "SELU": ("selu", 0.0),
    "SiLU": ("silu", 0.0),
    "Sigmoid": ("sigmoid", 0.0),
    "Softmax": ("softmax", 0.0),
    "Softmin": ("softmax", 0.0),
    "Softplus": ("softplus", 0.0),
    "Softplus of beta": ("softplus_beta", (2.0, 5.0)),
    "Softshrink": ("soft_shrink", 0.4),
    "Softsign": ("softsign", 0.0),
    "Tanh": ("tanh", 0.0),
    "Tanhshrink": ("tanh_shrink", 0.0),
    "Threshold": ("threshold", (0.3, -1.5)),
}


@pytest.mark.parametrize("key", TAKEN)
def test_from_torch_to_onnx_again(key):
    set_random_seed(0)
    model = from_onnx(GOLDEN[key].tobytes())
    np.testing.assert_allclose(model.predict(X), GOLDEN[f"{key}/y"], rtol=1e-5, atol=1e-5)
    name = key.rsplit(" ", 1)[0]
    if name in ACTIVATIONS:
        first = model.layers[0].activation
        assert (first.name, first.alpha) == ACTIVATIONS[name]
    y = np.tanh(X[:, :3])
    model.compile("adam", "mse")
    before = model.get_weights()
    losses = model.fit(X, y, 10, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    assert verify_onnx(to_onnx(model, verify=False), model, X).agrees
    quantized = quantize(model, X)
    # Near a threshold's step a value of 8 bits may fall on its other side.
    assert np.abs(quantized.predict(X) - model.predict(X)).mean() <= 0.1 * np.abs(model.predict(X)).max()
    assert verify_onnx(to_onnx(quantized, verify=False), quantized, X).agrees


@pytest.mark.parametrize("key", [key for key in KEYS if key.startswith("refused")])
def test_what_no_layer_stands_for_is_refused_by_node(key):
    with pytest.raises(ValueError, match="node '|node that"):
        from_onnx(GOLDEN[key].tobytes())


def test_both_exporters_wrote_them():
    names = {key.rsplit(" ", 1)[0] for key in TAKEN}
    assert len(names) == 38 and set(ACTIVATIONS) <= names
    exporters = {key.rsplit(" ", 1)[1] for key in TAKEN}
    assert exporters == {"script", "dynamo"}
