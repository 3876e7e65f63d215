"""quantize() of whole models: every scheme, layer and option; the budget, the report, and compare()."""

import cProfile
import json
import pstats

import numpy as np
import pytest

import nbdense
from nbdense.activations import ACTIVATIONS
from nbdense.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    LayerNormalization,
    LeakyReLU,
    Residual,
    RMSNormalization,
)
from nbdense.models import Sequential, load_model
from nbdense.quant import compare, quantize, quantize_aware
from nbdense.quant.conversion import bias_correction
from nbdense.quant.layers.checks import LIMITS
from nbdense.quant.model.network import FloatLayer, QuantizedAdd, QuantizedDense, QuantizedSoftmax
from nbdense.quant.schemes.dynamic import DynamicDense

SCHEMES = {
    "static": {},
    "static uint8 tflite": {"activation_dtype": "uint8", "rounding": "tflite"},
    "static symmetric": {"symmetric": True},
    "dynamic": {"scheme": "dynamic"},
    "weight_only": {"scheme": "weight_only"},
    "weight_only blocks": {"scheme": "weight_only", "granularity": "block", "block_size": 16},
}


@pytest.fixture
def rng():
    nbdense.set_random_seed(5)
    return np.random.default_rng(5)


def shake(model, rng):
    """Parameters as training leaves them: biases, norms and statistics that are not 0 and 1."""
    for name, view in model.network.tensors().items():
        if name.endswith(("gamma", "moving_variance")):
            view[...] = rng.uniform(0.5, 2, view.shape)
        elif not name.endswith("kernel"):
            view[...] = rng.normal(size=view.shape) * 0.3
    return model


def residual():
    return [Dense(12, "relu"), Residual([Dense(16, "relu"), Dense(12)]), Activation("relu"), Residual([Dense(9)])]


MODELS = {
    "mlp": lambda: [Input((10,)), Dense(24, "relu"), Dense(12, "tanh"), Dense(4, "softmax")],
    "batch norm": lambda: [
        Input((10,)), Dense(24), BatchNormalization(), Activation("relu"), Dropout(0.3), Dense(4), BatchNormalization()
    ],
    "norms": lambda: [
        Input((10,)), Dense(9, "relu"), BatchNormalization(), Dropout(0.2), Dense(8), BatchNormalization(),
        Activation("tanh"), Dense(3)
    ],
    "norms in between": lambda: [Input((10,)), BatchNormalization(), Dense(8, "relu"), BatchNormalization(), Dense(3)],
    "layer norm": lambda: [Input((10,)), Dense(24, "relu"), LayerNormalization(), Dense(4)],
    "rms norm": lambda: [Input((10,)), Dense(24, "relu"), RMSNormalization(), Dense(4)],
    "residual": lambda: [Input((10,)), *residual(), Dense(3, "softmax")],
    "residual with norms": lambda: [
        Input((10,)), Residual([Dense(10), BatchNormalization(), Activation("relu"), Dense(10)]), Dense(3)
    ],
    "positions": lambda: [Input((3, 10)), Dense(8, "relu"), Residual([Dense(8)]), Flatten(), Dense(5)],
    "no flatten": lambda: [Input((2, 3, 6)), Dense(8, "relu"), Dense(4, "softmax")],
    "flat image": lambda: [Input((4, 5)), Flatten(), Dense(8, "relu"), Dense(4)],
    "activations": lambda: [Input((10,)), Activation("tanh"), Dense(9), LeakyReLU(0.3), Dense(4, "linear")],
    "ends in dropout": lambda: [Input((10,)), Dense(5), Dropout(0.5)],
    "softmax inside": lambda: [Input((10,)), Dense(5, "softmax"), Dense(3)],
}  # fmt: skip


def draw(kind, rng, rows=300):
    model = shake(Sequential(MODELS[kind]()), rng)
    return model, rng.normal(size=(rows, *model.network.input_shape)).astype(np.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_scheme_is_close_to_the_float_model(kind, scheme, rng, tmp_path):
    model, x = draw(kind, rng)
    q = quantize(model, x, **SCHEMES[scheme])
    expected, seen = model.predict(x), q.predict(x)
    assert seen.shape == expected.shape
    error = np.sqrt(np.mean(np.square(seen - expected)))
    assert 0 < error < (0.012 if scheme != "static symmetric" else 0.025) * np.ptp(expected)
    q.save(tmp_path / "q.nbd")
    loaded = load_model(tmp_path / "q.nbd")
    np.testing.assert_array_equal(loaded.predict(x), seen)
    assert loaded.report("dict", timings=False) == q.report("dict", timings=False)


def test_norms_are_folded_and_clamps_merged(rng):
    model, x = draw("batch norm", rng)
    kinds = [type(layer) for layer in quantize(model, x).network.layers]
    assert kinds == [QuantizedDense, QuantizedDense]
    model, x = draw("residual with norms", rng)
    q = quantize(model, x).network
    assert [layer.kind for layer in q.layers] == ["dense", "dense", "add", "dense"]
    model, x = draw("residual", rng)
    q = quantize(model, x).network
    sums = [layer for layer in q.layers if isinstance(layer, QuantizedAdd)]
    assert [layer.activation for layer in sums] == ["relu", "linear"]
    assert sums[0].output_zero_point == -128
    model, x = draw("norms in between", rng)  # at the input a norm stays: its columns have scales of their own
    assert [layer.kind for layer in quantize(model, x).network.layers] == ["float", "dense", "dense"]
    model, x = draw("layer norm", rng)
    assert [layer.kind for layer in quantize(model, x).network.layers] == ["dense", "float", "dense"]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "softmax"])
def test_every_activation(name, dtype, rng):
    model = shake(Sequential([Input((6,)), Dense(30, name), Dense(4)]), rng)
    x = rng.normal(size=(400, 6)).astype(np.float32) * 2
    q = quantize(model, x, activation_dtype=dtype)
    expected = model.predict(x)
    away = np.abs(q.predict(x) - expected)
    # What rounding moves over the threshold of a function that jumps there is away by as much as it jumps.
    worst = np.quantile(away, 0.9) if name in {"hard_shrink", "thresholded_relu"} else away.max()
    assert worst < 0.03 * np.ptp(expected)
    assert q.network.layers[0].kind == "dense"


def test_custom_activation(rng, tmp_path):
    from nbdense.activations import custom

    bump = custom("bump", lambda z: z / (1 + z * z), lambda z: (1 - z * z) / (1 + z * z) ** 2)
    model = shake(Sequential([Input((6,)), Dense(30, bump), Dense(4)]), rng)
    x = rng.normal(size=(400, 6)).astype(np.float32) * 2
    expected = model.predict(x)
    for options in ({}, {"scheme": "dynamic"}, {"scheme": "weight_only"}):
        q = quantize(model, x, **options)
        assert np.abs(q.predict(x) - expected).max() < 0.03 * np.ptp(expected)
        q.save(tmp_path / "q.nbd")
        loaded = load_model(tmp_path / "q.nbd", custom_objects={"bump": bump} if options else None)
        np.testing.assert_array_equal(loaded.predict(x), q.predict(x))
    with pytest.raises(ValueError, match="'bump' is a custom one"):
        load_model(tmp_path / "q.nbd")


@pytest.mark.parametrize("dtype", LIMITS)
def test_integer_softmax(dtype, rng):
    model, x = draw("mlp", rng)
    q = quantize(model, x, softmax="integer", activation_dtype=dtype)
    assert isinstance(q.network.layers[-1], QuantizedSoftmax)
    assert np.abs(q.predict(x) - model.predict(x)).max() < 0.03
    low = LIMITS[dtype][0]
    # what a C program would do with the integers
    np.testing.assert_array_equal(q.predict(x), (q.predict_integers(x).astype(int) - low) / np.float32(256))


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight_only"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_four_bits(scheme, granularity, rng):
    model, x = draw("mlp", rng, rows=2000)
    expected = model.predict(x)
    options = {"scheme": scheme, "granularity": granularity, "bits": 4}
    errors = {}
    for solver in ("nearest", "gptq"):
        q = quantize(model, x, solver=solver, **options)
        errors[solver] = np.square(q.predict(x) - expected).mean()
        weights = np.concatenate([layer.kernel.ravel() for layer in q.network.layers])
        assert -7 <= weights.min() < -5
        assert 5 < weights.max() <= 7
    assert errors["gptq"] < errors["nearest"] < 0.01
    q = quantize(model, x, **options)  # the solver that "auto" stands for
    assert np.square(q.predict(x) - expected).mean() == errors["gptq"]
    eight = quantize(model, x, scheme=scheme, granularity=granularity)
    assert q.size_bytes < 0.76 * eight.size_bytes


def test_blocks_of_four_bits_are_finer_than_columns(rng):
    model, x = draw("mlp", rng)
    kernel = model.parameters[f"{model.layers[0].name}/kernel"]
    kernel[::5] *= 8  # a few large inputs
    errors = [
        np.square(quantize(model, scheme="weight_only", bits=4, **options).predict(x) - model.predict(x)).mean()
        for options in ({"granularity": "block", "block_size": 2}, {"granularity": "per_channel"})
    ]
    assert errors[0] < 0.5 * errors[1]


def test_bias_correction_takes_the_shift_of_the_mean_away(rng):
    model = shake(Sequential([Input((20,)), Dense(64, "relu"), Dense(64, "relu"), Dense(3)]), rng)
    x = rng.uniform(size=(3000, 20)).astype(np.float32)
    options = {"bits": 4, "solver": "nearest"}
    for scheme in ("static", "dynamic", "weight_only"):
        models = [quantize(model, x, scheme=scheme, bias_correction=on, **options) for on in (False, True)]
        shifts = [np.abs((q.predict(x) - model.predict(x)).mean(axis=0)) for q in models]
        assert shifts[1].max() < 0.25 * shifts[0].max()


@pytest.mark.parametrize("scheme", ["static", "dynamic", "weight_only"])
@pytest.mark.parametrize("kind", ["residual", "positions", "norms"])
def test_bias_correction_is_the_same_with_and_without_room(kind, scheme, rng, monkeypatch):
    """Batches that wait between layers give what those give that start from the data for every layer."""
    model, x = draw(kind, rng, rows=1300)
    corrected = []
    for room in (2**25, 12 * 600, 0):
        monkeypatch.setattr(bias_correction, "_KEPT", room)
        tensors = quantize(model, [x[:7], x[7:]], scheme=scheme, bias_correction=True).network.to_tensors()[0]
        corrected.append({name: tensor.tobytes() for name, tensor in tensors.items()})
    assert corrected[0] == corrected[1] == corrected[2]


DEEP = {
    "static": {"activation_dtype": "uint8", "rounding": "tflite"},
    "bias correction": {"bias_correction": True},
    "4 bits, gptq": {"bits": 4, "solver": "gptq"},
    "dynamic": {"scheme": "dynamic", "bias_correction": True},
    "weight_only": {"scheme": "weight_only", "granularity": "block"},
    "trained": None,
}


@pytest.mark.parametrize("options", DEEP.values(), ids=DEEP)
def test_what_quantize_does_grows_with_the_depth(options, rng, tmp_path):
    """200 layers take about 4 times the calls that 50 take; so do files and compare."""
    counts = []
    x = rng.normal(size=(60, 16)).astype(np.float32)
    for layers in (4, 50, 200):  # of 4 everything is imported and compiled
        blocks = [Residual([Dense(16, "relu"), Dense(16)]) for _ in range(layers // 4)]
        model = Sequential([Input((16,)), *blocks, *(Dense(16, "relu") for _ in range(layers // 2))])
        model = quantize_aware(model, x) if options is None else model
        counts.append([])
        q = counted(lambda model=model: quantize(model, x, **(options or {})), counts[-1])
        q.save(tmp_path / "q")
        counted(lambda: load_model(tmp_path / "q"), counts[-1])
        counted(lambda model=model, q=q: compare(model, q, x), counts[-1])
    assert all(more <= 5 * fewer for fewer, more in zip(*counts[1:], strict=True)), counts


def counted(work, counts):
    """Return the result of some work, and count its calls of functions."""
    with cProfile.Profile() as profile:
        made = work()
    counts.append(pstats.Stats(profile).total_calls)
    return made


def test_equalization_helps_channels_of_unequal_ranges(rng):
    model = shake(Sequential([Input((8,)), Dense(32, "relu"), Dense(3)]), rng)
    first, bias, second, _ = (view for view in model.network.tensors().values())
    factors = 10 ** rng.uniform(-2, 2, 32)
    first *= factors
    bias *= factors
    second /= factors[:, np.newaxis]
    x = rng.normal(size=(500, 8)).astype(np.float32)
    errors = [np.abs(quantize(model, x, equalize=on).predict(x) - model.predict(x)).max() for on in (False, True)]
    assert errors[1] < 0.2 * errors[0]
    q = quantize(model, x, equalize=True)
    assert min(layer.sqnr_db for layer in compare(model, q, x).layers) > 25


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_range_methods(method, rng):
    model, x = draw("mlp", rng, rows=2000)
    q = quantize(model, x, range_method=method)
    assert np.abs(q.predict(x) - model.predict(x)).max() < 0.1
    if method in ("percentile", "entropy"):
        x[0, 0] = 1000  # one value that is wrong
        widest = quantize(model, x).network.layers[0].input_scale
        assert quantize(model, x, range_method=method).network.layers[0].input_scale < 0.2 * widest


def test_calibration_streams(rng, tmp_path):
    model, x = draw("mlp", rng, rows=1000)
    np.save(tmp_path / "x.npy", x)
    expected = quantize(model, x).network.to_tensors()[1]["layers"]
    sources = (
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        [x[:17], x[17:]],
        lambda: iter([x[:400], x[400:]]),
        iter([x]),
    )
    for source in sources[:3]:
        assert quantize(model, source).network.to_tensors()[1]["layers"] == expected
    with pytest.raises(ValueError, match="more than once"):
        quantize(model, sources[3], bits=4)


# -- the budget --


class Fragile:
    """A model of which one layer cannot stand quantization: huge inputs that cancel."""

    def __init__(self, rng):
        self.model = Sequential([Input((16,)), Dense(16, "relu", name="a"), Dense(8, name="b"), Dense(3, name="c")])
        first, bias, second, _, third, _ = self.model.network.tensors().values()
        first[...], bias[...] = np.eye(16), 0
        second[...] = rng.normal(size=(16, 8))
        second[0], second[1] = 4000.0, -4000.0
        third[...] = rng.normal(size=(8, 3))
        self.x = rng.uniform(0.5, 1, size=(400, 16)).astype(np.float32)
        self.x[:, 1] = self.x[:, 0]
        self.y = self.model.predict(self.x).argmax(axis=1)


def test_budget_keeps_in_float_what_costs_too_much(rng):
    case = Fragile(rng)
    bad = quantize(case.model, case.x)
    assert (bad.predict(case.x).argmax(axis=1) == case.y).mean() < 0.8
    q = quantize(case.model, case.x, accuracy_budget=0.05, evaluate=(case.x, case.y))
    assert (q.predict(case.x).argmax(axis=1) == case.y).mean() >= 0.95
    assert [isinstance(layer, FloatLayer) for layer in q.network.layers] == [False, True, False]
    found = q.report("dict", timings=False)
    entry = found["layers"][1]
    assert entry["name"] == "b"
    assert entry["cost_alone"] > 0.1
    assert "alone it costs" in entry["why"]
    assert "why" not in found["layers"][0]
    metric = found["model"]["metric"]
    assert metric["float"] == 1.0
    assert metric["quantized"] >= 0.95
    assert "'b' stays in float: alone it costs" in q.report(timings=False)


def test_budget_gives_more_bits_first(rng):
    model, x = draw("mlp", rng, rows=1000)
    y = model.predict(x)
    options = {"bits": 4, "solver": "nearest", "scheme": "weight_only"}
    loose = quantize(model, x, accuracy_budget=0.5, evaluate=(x, y), **options)
    assert [layer.bits for layer in loose.network.layers] == [4, 4, 4]
    lost = 1 - loose.report("dict", timings=False)["model"]["metric"]["quantized"]
    tight = quantize(model, x, accuracy_budget=lost / 4, evaluate=(x, y), **options)
    assert 8 in [layer.bits for layer in tight.network.layers]
    assert "has 8 bits" in tight.report(timings=False)
    calls = []

    def score(candidate):
        calls.append(candidate)
        return -np.abs(candidate.predict(x) - y).max()

    quantize(model, x, accuracy_budget=1.0, evaluate=score, **options)
    assert calls[0] is model
    with pytest.raises(ValueError, match="with all dense layers in float"):
        quantize(model, x, accuracy_budget=0.0, evaluate=lambda m: float(m is model))


@pytest.mark.parametrize(
    ("budget", "evaluate", "message"),
    [
        (0.1, None, "go together"),
        (None, (np.zeros((1, 10)), [0]), "go together"),
        (-0.1, (np.zeros((1, 10)), [0]), "at least 0, got -0.1"),
        (np.nan, (np.zeros((1, 10)), [0]), "at least 0"),
        ("1%", (np.zeros((1, 10)), [0]), "at least 0"),
        (0.1, 3, "must be"),
        (0.1, (np.zeros((0, 10)), []), "at least one, got 0 and 0"),
        (0.1, (np.zeros((2, 10)), [0]), "as many rows of x as of y, at least one, got 2 and 1"),
        (0.1, (np.zeros((2, 10)), np.zeros((2, 3))), r"y of shape \(2, 3\) does not go with outputs of shape \(2, 4\)"),
        (0.1, lambda m: np.nan, "must return a finite score, got nan"),
        (0.1, (np.ma.masked_all((2, 10)), [0, 1]), "x: masked element in row 0, column 0"),
        (0.1, (np.zeros((2, 10)), np.ma.masked_equal([0, 1], 1)), "quantize: y of evaluate: masked element in row 1"),
    ],
)
def test_unfit_budgets(budget, evaluate, message, rng):
    model, x = draw("mlp", rng)
    with pytest.raises(ValueError, match=message):
        quantize(model, x, accuracy_budget=budget, evaluate=evaluate)


# -- report and compare --


def test_report(rng):
    model, x = draw("residual", rng)
    q = quantize(model, x)
    found = q.report("dict")
    assert json.loads(json.dumps(found)) == found
    dense = found["layers"][0]
    layer = q.network.layers[0]
    kernel = model.network.tensors()["dense/kernel"].astype(np.float64)
    noise = np.square(kernel - layer.kernel * layer.kernel_scales).sum()
    assert dense["weight_sqnr_db"] == pytest.approx(10 * np.log10(np.square(kernel).sum() / noise), abs=0.01)
    assert 20 < dense["activation_sqnr_db"] < 60
    assert dense["bytes"] == 10 * 12 + 12 * 8
    assert dense["multiply_adds"] == 120
    assert found["model"]["bytes"] == q.size_bytes
    assert found["model"]["float_bytes"] == 4 * model.count_params()
    # the block's input, what its first layer makes of it, and the sum's other term: 12 + 16 + 12
    assert found["model"]["peak_activation_bytes"] == 12 + 16 + 12
    assert [timing["rows"] for timing in found["timings"]] == [1, 256]
    assert all(timing["us"] > 0 and timing["float_us"] > 0 for timing in found["timings"])
    text = q.report()
    assert "dense" in text
    assert "microseconds a row" in text
    figure = q.report("plot")
    assert len(figure.axes) == 3
    with pytest.raises(ValueError, match="form must be"):
        q.report("html")


def test_saturation_is_reported(rng):
    model, x = draw("mlp", rng)
    x[:, 0] *= np.where(rng.random(300) < 0.05, 50, 1)
    shares = [quantize(model, x, range_method=m).report("dict", timings=False)["layers"][0]["saturated"]
              for m in ("minmax", "entropy")]  # fmt: skip
    assert shares[0] == 0
    assert 0 < shares[1] < 0.2


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
@pytest.mark.parametrize("kind", ["no flatten", "positions", "norms"])
def test_compare_comes_to_what_the_whole_model_gives(kind, scheme, rng):
    model, x = draw(kind, rng)
    q = quantize(model, x, scheme=scheme, softmax="integer")
    last = compare(model, q, x).layers[-1]
    expected, seen = model.predict(x).astype(np.float64), q.predict(x)
    noise = np.square(expected - seen).sum()
    assert last.max_difference == pytest.approx(np.abs(expected - seen).max(), rel=1e-4)
    assert last.sqnr_db == pytest.approx(10 * np.log10(np.square(expected).sum() / noise), rel=1e-4)


def test_compare_finds_the_layer(rng):
    case = Fragile(rng)
    q = quantize(case.model, case.x)
    found = compare(case.model, q, case.x)
    assert found.worst == "b"
    assert [layer.name for layer in found.layers] == ["a", "b", "c"]
    assert "'b'" in str(found)
    for options in ({"scheme": "dynamic"}, {"scheme": "weight_only"}, {"softmax": "integer"}):
        model, x = draw("residual", rng)
        found = compare(model, quantize(model, x, **options), x)
        assert all(layer.sqnr_db > 20 for layer in found.layers)
    with pytest.raises(TypeError, match="model must be a float model"):
        compare(q, q, case.x)
    with pytest.raises(TypeError, match="q must be"):
        compare(case.model, case.model, case.x)
    with pytest.raises(ValueError, match=r"expects shape \(rows, 16\)"):
        compare(case.model, q, case.x[:, :3])
    hidden = np.ma.array(case.x)
    hidden[4, 3] = np.ma.masked
    for take in (q.predict, lambda x: compare(case.model, q, x)):
        with pytest.raises(ValueError, match="x: masked element in row 4, column 3"):
            take(hidden)


# -- errors and agreement --


def test_schemes_that_need_data(rng):
    model, _ = draw("mlp", rng)
    for options, what in [
        ({}, "scheme 'static'"),
        ({"scheme": "weight_only", "solver": "gptq"}, "solver 'gptq'"),
        ({"scheme": "dynamic", "bias_correction": True}, "bias_correction"),
    ]:
        with pytest.raises(ValueError, match=f"{what} needs calibration data"):
            quantize(model, **options)
    assert isinstance(quantize(model, scheme="dynamic").network.layers[0], DynamicDense)
    with pytest.raises(ValueError, match="'block' needs scheme 'weight_only'"):
        quantize(model, scheme="dynamic", granularity="block")


def test_threads_change_nothing(rng):
    model, x = draw("residual", rng, rows=2000)
    for options in ({}, {"scheme": "dynamic"}, {"bits": 4, "bias_correction": True}):
        seen = []
        for threads in (1, 2):
            nbdense.set_num_threads(threads)
            q = quantize(model, x, **options)
            tensors, config = q.network.to_tensors()
            seen.append((q.predict(x).tobytes(), json.dumps(config), b"".join(t.tobytes() for t in tensors.values())))
        assert seen[0] == seen[1]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["mlp", "residual", "residual with norms", "norms", "positions"])
def test_fake_quantized_models_compute_what_their_integers_give(kind, bits, rng):
    model, x = draw(kind, rng)
    y = model.predict(x) + rng.normal(size=(len(x), *model.network.output_shape)) * 0.1
    model.compile("adam", "mean_squared_error")
    aware = quantize_aware(model, x, bits=bits)
    aware.fit(x, y, epochs=2, verbose=0)
    q = quantize(aware)
    assert {layer.bits for layer in q.network.layers if isinstance(layer, QuantizedDense)} == {bits}
    expected, seen = aware.predict(x), q.predict(x)
    # a float sum may round a tie of the integers to the other side: by then by whole steps
    assert (np.abs(seen - expected) <= 1e-5 * np.abs(expected).max()).mean() > 0.99
    assert np.abs(aware.evaluate(x, y, verbose=0) - np.square(seen - y).mean()) < 1e-3
    assert [layer.name for layer in compare(aware, q, x).layers] == [layer.name for layer in q.network.layers]
    if bits == 8:
        with pytest.raises(ValueError, match="bits must be 8, with which quantize_aware trained, got 4"):
            quantize(aware, bits=4)
