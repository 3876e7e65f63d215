"""Layers that round: as quantize does, to the bit; gradients straight through; and what of a range is learned."""

import numpy as np
import pytest

import nbdense as nb
from nbdense import layers as k
from nbdense.layers.fake_quantization import FakeQuantize, FakeQuantizedDense
from nbdense.quant.layers.activations import activation_parameters
from nbdense.quant.model.network import LIMITS
from nbdense.quant.training.aware import kernel_scales
from tests.reference import naive_fake_quant, naive_integer
from tests.support.stacks import made

# -- rounding --


@pytest.mark.kernels
@pytest.mark.parametrize("model_dtype", ["float32", pytest.param("float64", marks=pytest.mark.double)])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("bounds", [(-1.3, 2.9), (0.0, 6.1), (-5.0, 0.0), (0.3, 0.7), (-2e-3, 1e-3), (-3e7, 1.0)])
def test_values_are_quantizes(bounds, dtype, model_dtype):
    """To the bit: the same scale and zero point, half to even, saturating; zero stays zero, NaN stays NaN."""
    learned = made([FakeQuantize(*bounds, dtype)], (7,), model_dtype)
    factors = np.array([0.8, 1.3], np.float32)
    learned.parameters["fake_quantize/range_factor"][...] = factors
    for model, used in (
        (made([FakeQuantize(*bounds, dtype, learned=False)], (7,), model_dtype), bounds),
        (learned, [end * float(factor) for end, factor in zip(bounds, factors, strict=True)]),
    ):
        scale, zero_point = naive_integer.activation_parameters(*used, dtype)
        assert (float(scale), zero_point) == activation_parameters(tuple(used), dtype)
        least, most = LIMITS[dtype]
        steps = np.arange(least - 9, most + 9) - zero_point
        x = np.concatenate([steps * scale, (steps + np.float32(0.5)) * scale, [np.inf, -np.inf, 0.0]]).astype("float32")
        drawn = np.random.default_rng(0).normal(0, 200 * scale, 500).astype("float32")
        x = np.resize(np.concatenate([x, drawn]), (155, 7))
        expected = naive_integer.dequantize(naive_integer.quantize(x, scale, zero_point, dtype), scale, zero_point)
        if model_dtype == "float64":  # in which the quotient is taken then
            steps = np.clip(np.rint(x.astype(np.float64) / float(scale)), least - zero_point, most - zero_point)
            expected = steps * float(scale)
        np.testing.assert_array_equal(model.predict(x), expected)
        out = model.predict(np.array([[np.nan, 0, 1, 0, 0, 0, 0]], "float32"))
        assert np.isnan(out[0, 0]) and out[0, 1] == 0 and not np.isnan(out[0, 1:]).any()


def test_nothing_known_of_a_range_is_as_for_quantize():
    model = made([FakeQuantize(0.0, 0.0, "uint8")], (2,), "float32")
    assert activation_parameters((0.0, 0.0), "uint8") == (float(np.float32(1 / 255)), 0)
    np.testing.assert_allclose(model.predict(np.array([[0.3, 3.0]])), [[np.rint(0.3 * 255) / 255, 1.0]], rtol=1e-6)


def test_factors_stop_before_a_range_is_gone():
    model = made([FakeQuantize(-1.0, 1.0)], (1,), "float32")
    model.parameters["fake_quantize/range_factor"][...] = [-3.0, 1e-9]
    np.testing.assert_allclose(model.predict(np.array([[-5.0], [5.0]])), [[-1 / 16], [1 / 16]], rtol=0.02)


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.double)])
@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (4, 7)])
def test_kernels_are_read_rounded(bits, limit, dtype):
    """By everything that runs the network, whatever has been written into the parameters meanwhile."""
    model = made([FakeQuantizedDense(19, bits, use_bias=False)], (17,), dtype)
    rng = np.random.default_rng(0)
    kernel, eye = rng.normal(size=(17, 19)).astype("float32"), np.eye(17, dtype=dtype)
    scales = rng.uniform(0.01, 0.4, 19).astype("float32")
    scales[3] = 0.0  # never from quantize_aware; a column of zeros then, not of NaN
    model.set_weights([kernel, scales])
    with np.errstate(divide="ignore", invalid="ignore"):
        rounded = np.clip(np.rint(kernel / scales), -limit, limit).astype(dtype) * scales.astype(dtype)
    rounded[:, 3] = 0
    np.testing.assert_array_equal(model.predict(eye), rounded)
    np.testing.assert_array_equal(model.forward(eye), rounded)
    np.testing.assert_allclose(model.backward(np.eye(17, 19)), rounded.T[:17], atol=0)
    np.testing.assert_allclose(model.gradients["fake_quantized_dense/kernel"], np.eye(17, 19), atol=0)
    np.testing.assert_array_equal(model.parameters["fake_quantized_dense/kernel"], kernel)
    model.parameters["fake_quantized_dense/kernel"][...] = 0
    assert not model.predict(eye).any() and not model.forward(eye).any()


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("limit", [127, 7])
def test_kernel_scales(limit, granularity):
    rng = np.random.default_rng(1)
    kernel = rng.standard_t(4, size=(300, 6)) * [1, 2, 0.1, 5, 1e-9, 0]
    scales = kernel_scales(kernel, np.zeros(6), 0.1, limit, granularity)
    largest = naive_integer.weight_scales(kernel, limit=limit, per_channel=granularity == "per_channel")

    def error(scales):
        return np.square(naive_integer.quantize_weights(kernel, scales, limit=limit) * scales - kernel).sum(axis=0)

    if granularity == "per_tensor":
        assert (scales == scales[0]).all()
        assert error(scales).sum() <= error(largest).sum()
    else:
        assert (error(scales) <= error(largest)).all()
    if limit == 127:
        np.testing.assert_array_equal(scales[:5], largest[:5])
    elif granularity == "per_channel":
        assert (error(scales)[:4] < 0.8 * error(largest)[:4]).all()
    assert (scales > 0).all()
    # A bias beside weights that are next to nothing keeps inside int32.
    bias = np.full(6, 1e3)
    scales = kernel_scales(kernel, bias, 0.1, limit, granularity)
    assert np.abs(naive_integer.quantize_bias(bias, np.float32(0.1), scales)).max() <= 2**26


# -- gradients --


@pytest.mark.kernels
@pytest.mark.double
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_gradients_are_slopes_with_the_rounding_held(training):
    """Weights', inputs' and both ends of every range, by central differences of the straight-through surrogate."""
    layers = [
        FakeQuantize(-2.0, 2.0, "uint8", learned=True, name="given"),
        FakeQuantizedDense(33, 4, activation="relu"),
        FakeQuantize(-0.3, 1.5, name="narrow"),
        FakeQuantizedDense(6, 8, name="second"),
        FakeQuantize(-1.0, 0.7, "uint8", name="before"),
        k.Activation("tanh"),
        FakeQuantize(-1.0, 127 / 128, learned=False, name="fixed"),
        FakeQuantizedDense(3, 4, name="third"),
        FakeQuantize(-0.4, 0.3, name="after"),
    ]
    model = made(layers, (5,), "float64")
    rng = np.random.default_rng(5)
    for name, view in model.parameters.items():
        if name.endswith("scale"):
            view[...] = rng.uniform(0.1, 0.3, view.shape)
        else:
            view[...] = rng.uniform(0.7, 1.4, view.shape) if "factor" in name else rng.normal(size=view.shape) * 0.4
    x, pull = rng.normal(size=(6, 5)) * 2, rng.normal(size=(6, 3))
    out = model.forward(x, training=training)
    slope = model.backward(pull)
    gradients = {name: view.copy() for name, view in model.gradients.items()}
    parameters = {name: view.copy() for name, view in model.parameters.items()}
    described = [(layer.kind, layer.get_config()) for layer in model.layers]
    rounding = naive_fake_quant.rounding_of(described, parameters, x)
    surrogate = naive_fake_quant.surrogate(described, parameters, x, rounding)
    np.testing.assert_allclose(surrogate, out, rtol=1e-6, atol=1e-7)
    for held in rounding:  # nothing is so rare that its gradient is not seen
        inside = held.get("inside")
        assert inside is None or inside.any()
    assert sum((~held["inside"]).any() for held in rounding if "inside" in held) >= 4
    for name, view in {**parameters, "the input": x}.items():
        if name.endswith("scale"):
            continue
        found = slope if name == "the input" else gradients[name]
        for at in {tuple(rng.integers(0, view.shape)) for _ in range(12)}:
            before, values = view[at], []
            for change in (1e-5, -1e-5):
                view[at] = before + change
                values.append((naive_fake_quant.surrogate(described, parameters, x, rounding) * pull).sum())
            view[at] = before
            expected = (values[0] - values[1]) / 2e-5
            np.testing.assert_allclose(found[at], expected, atol=2e-5, rtol=2e-5, err_msg=f"{name} {at}")


def test_a_range_that_does_not_learn_has_no_parameters():
    model = made([FakeQuantizedDense(4, 8), FakeQuantize(-1.0, 1.0, learned=False)], (3,), "float32")
    assert list(model.parameters) == [f"fake_quantized_dense/{what}" for what in ("kernel", "bias", "kernel_scale")]
    frozen = made([FakeQuantizedDense(4, 8), FakeQuantize(-1.0, 1.0, trainable=False)], (3,), "float32")
    frozen.compile(nb.SGD(0.1), "mse")
    rng = np.random.default_rng(0)
    before = frozen.get_weights()
    frozen.fit(rng.normal(size=(40, 3)) * 3, rng.normal(size=(40, 4)), verbose=0)
    moved = [(old != new).any() for old, new in zip(before, frozen.get_weights(), strict=True)]
    assert moved == [True, True, False, False]


def test_ranges_learn_and_are_not_decayed():
    """A range that is far too wide or too narrow finds its values; weight decay does not pull at factors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 2))
    for high, direction in ((0.5, 1), (40.0, -1)):
        model = made([FakeQuantize(-high, high)], (2,), "float32")
        model.compile(nb.Adam(0.01), "mse")
        first = model.evaluate(x, x)
        model.fit(x, x, epochs=15, verbose=0)
        assert model.evaluate(x, x) < 0.7 * first
        factors = model.parameters["fake_quantize/range_factor"]
        assert (np.sign(factors - 1) == direction).all()
    model = made([FakeQuantize(-1.0, 1.0), FakeQuantizedDense(2)], (2,), "float32")
    model.compile(nb.SGD(0.0, weight_decay=0.5), "mse")
    model.compile(nb.AdamW(1e-9, weight_decay=1e7), "mse")
    before = np.abs(model.parameters["fake_quantized_dense/kernel"]).sum()
    model.fit(x, x, verbose=0)
    np.testing.assert_allclose(model.parameters["fake_quantize/range_factor"], 1.0, atol=1e-6)
    assert np.abs(model.parameters["fake_quantized_dense/kernel"]).sum() < 0.95 * before
