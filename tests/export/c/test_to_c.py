"""C by to_c: its integers are nbdense's, its texts are strict C99, and nothing wrong is written."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nbdense.activations import ACTIVATIONS
from nbdense.export import to_c, verify_c
from nbdense.export.c import api
from nbdense.export.c.kernels.floats import EXPRESSIONS, ROW_FUNCTIONS
from nbdense.export.c.program import program_of
from nbdense.export.c.steps import floats
from nbdense.layers import BatchNormalization, Dense, Input, LayerNormalization, Residual, RMSNormalization
from nbdense.models import Sequential
from nbdense.quant import sparsify
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import LIMITS, FloatLayer, QuantizedNetwork
from tests.support.c_programs import STRICT, run_all, write_sources
from tests.support.drawn_networks import FUNCTIONS, Drawn, draw_network
from tests.support.edge_networks import chain, integers_for, left_out, tables, thinned

ROUNDINGS = ["onnx", "tflite", "gemmlowp", "ruy"]
# The ziglang wheel's compiler has no sanitizer of addresses.
SANITIZED = (
    ["cc", "-O0", "-g0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if shutil.which("cc")
    else [sys.executable, "-m", "ziglang", "cc", "-O0", "-g0", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
)


def drawn_models():
    """Every activation, residual blocks, positions, 4 bits, all roundings, both types, widths from 1 to 300."""
    models = []
    for number, activation in enumerate(FUNCTIONS):
        dtype, rounding = sorted(LIMITS)[number % 2], ROUNDINGS[number // 2 % 4]
        if not ACTIVATIONS[activation].is_clamp:
            models.append(tables(number, dtype, rounding, activation))
        else:
            models.append(chain([17, 9, 5], number, dtype, rounding, activation))
    for seed in range(8):
        network = draw_network(seed)
        models += [QuantizedNetwork(network.layers, network.activation_dtype, rounding) for rounding in ROUNDINGS]
    for seed, width in enumerate([1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 127, 300]):
        dtype, rounding = sorted(LIMITS)[seed % 2], ROUNDINGS[seed // 2 % 4]
        models.append(chain([width, 300 // width, 6, 3], seed, dtype, rounding, bits=(8, 4)[seed // 4 % 2]))
        models.append(chain([5, width, 7], seed, dtype, rounding, softmax=True, granularity="per_tensor"))
    return models + sparse_models()


def sparse_models():
    """Single weights and blocks of four beside dense layers; farther apart than a byte counts; none; 4 bits."""
    models = []
    for seed, rounding in enumerate(ROUNDINGS):
        dtype = sorted(LIMITS)[seed % 2]
        d = Drawn(seed, dtype)
        table, form = d.looked_up(60, 37, d.format(0.02), "tanh", name="table")
        layers = [table, d.dense(37, 5, form, d.format(0.03), name="last")]
        models.append(thinned(QuantizedNetwork(layers, dtype, rounding), 0.85, (1, 4)[seed // 2]))
        models.append(thinned(chain([1500, 6, 50, 2], seed, dtype, rounding), 0.995, (4, 1)[seed // 2]))
        models.append(thinned(chain([70, 31, 7], seed, dtype, rounding, bits=4), 0.9))
        models.append(thinned(chain([30, 30, 2], seed, dtype, rounding), 1.0))
    d = Drawn(7)
    repeated = d.dense(60, 18, d.format(0.02), form := d.format(0.03), positions=3, name="a")
    models.append(thinned(QuantizedNetwork([repeated, d.dense(18, 5, form, form, positions=3, name="b")]), 0.8))
    return models


def models_of(dtype):
    return [network for network in drawn_models() if network.activation_dtype == dtype]


def kinds_of(network):
    return " ".join(call.title for call in program_of(network).calls)


@pytest.mark.parametrize(("dtype", "target"), [("int8", "generic"), ("uint8", "cortex-m4"), ("int8", "cortex-m0plus")])
def test_integers_are_nbdense_s(dtype, target, tmp_path):
    networks = models_of(dtype)
    if target != "generic":
        networks = networks[::3] + [network for network in networks if "sparse" in kinds_of(network)][::2]
    sources = write_sources(tmp_path, networks, target=target)
    rows = [integers_for(network, 24, seed) for seed, network in enumerate(networks)]
    made = run_all(
        tmp_path, sources, [q for q, _ in rows], [network.n_out for network in networks], SANITIZED, f"{dtype}_t"
    )
    varied = 0
    for network, (_, x), outputs in zip(networks, rows, made, strict=True):
        expected = QuantizedModel(network).predict_integers(x).reshape(outputs.shape)
        np.testing.assert_array_equal(outputs, expected, err_msg=str(network.layers))
        varied += len(np.unique(expected)) > 2
    assert varied > 0.9 * len(networks)


def test_real_numbers_are_nbdense_s(tmp_path):
    networks = [draw_network(seed) for seed in range(8)]
    sources = write_sources(tmp_path, networks)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(16, *network.input_shape)).astype(np.float32) for network in networks]
    for x in inputs:
        x.reshape(16, -1)[0, 0], x.reshape(16, -1)[1, 0] = 3e38, -3e38
    made = run_all(
        tmp_path, sources, inputs, [network.n_out for network in networks], SANITIZED, "float", "predict_values"
    )
    for network, x, outputs in zip(networks, inputs, made, strict=True):
        expected = QuantizedModel(network).predict(x).reshape(outputs.shape)
        if network.final_activation == "softmax":
            np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(outputs, expected)


@pytest.mark.parametrize("options", [["-O0"], ["-O2"], ["-Os", "-ffreestanding"]], ids=" ".join)
def test_a_thousand_rows_of_mnist_s_size(options, tmp_path):
    networks = [chain([784, 64, 32, 10], rounding=rounding) for rounding in ROUNDINGS]
    networks += [thinned(networks[0], 0.9), thinned(networks[0], 0.9, 4)]
    sources = write_sources(tmp_path, networks, target="generic")
    q, x = integers_for(networks[0], 1000)
    made = run_all(tmp_path, sources, [q] * len(networks), [10] * len(networks), ["cc", *options])
    for network, outputs in zip(networks, made, strict=True):
        np.testing.assert_array_equal(outputs, QuantizedModel(network).predict_integers(x))


@pytest.mark.parametrize("target", ["generic", "cortex-m4", "cortex-m0plus"])
def test_source_is_strict_c99(target, tmp_path):
    networks = [tables(1, "int8", "onnx", "tanh"), tables(1, "uint8", "tflite", "tanh"), draw_network(3)]
    networks += [chain([9, 6, 4], bits=4, softmax=True), draw_network(0), *sparse_models()[:3], sparse_float_model()]
    sources = write_sources(tmp_path, networks, target=target, memory="caller")
    for define in ([], [f"-DM{number}_SELF_TEST" for number in range(len(networks))]):
        command = ["cc", "-std=c99", "-fsyntax-only", "-ffreestanding", *STRICT, *define, *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for source in sources:
        text = source.read_text()
        assert set(re.findall(r"#include <(.*)>", text)) <= set()
        assert "malloc" not in text


def test_self_test_counts_differences(tmp_path):
    path = tmp_path / "net.c"
    to_c(chain([12, 9, 4]), path, verify=False)
    command = ["cc", "-DNET_SELF_TEST", "net.c", "-o", "test"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run(["./test"], cwd=tmp_path, check=False).returncode == 0
    text = path.read_text()
    bias = re.search(r"bias_1\[4\] = \{\n    (-?\d+)", text)
    path.write_text(text.replace(bias[0], bias[0].replace(bias[1], str(int(bias[1]) + 100000))))
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run(["./test"], cwd=tmp_path, check=False).returncode > 0


def float_model(activation):
    layers = [
        Input((6,)),
        Dense(9, activation),
        LayerNormalization(),
        Residual([Dense(9, "relu"), BatchNormalization()]),
    ]
    return Sequential([*layers, RMSNormalization(), Dense(4, "softmax")])


@pytest.mark.parametrize("activation", ["gelu", "sigmoid"])
def test_float_model(activation, tmp_path):
    model = float_model(activation)
    model.build((None, 6))
    path = tmp_path / "net.c"
    to_c(model, path)
    result = verify_c(path, model)
    assert result.agrees and result.integers is None
    assert 0 < result.max_absolute < 1e-5


def sparse_float_model():
    """Layers of which some are smaller without their zeros, as single weights and as blocks."""
    model = Sequential([Input((600,)), Dense(30, "relu"), Dense(22, "relu"), Dense(20), Dense(3)])
    model.build((None, 600))
    rng, weights = np.random.default_rng(0), []
    for tensor in model.get_weights():
        drawn = rng.normal(size=tensor.shape) / np.sqrt(len(tensor))
        zeros, width = {600: (0.99, 1), 30: (0.8, 4), 22: (0.85, 1)}.get(len(tensor), (0.0, 1))
        if drawn.ndim == 2:
            drawn[left_out(rng, drawn.shape, zeros, width)] = 0
        weights.append(drawn)
    model.set_weights(weights)
    return model


def test_sparse_kernels_are_chosen_by_their_bytes():
    """Bytes of a layer's constants, as the report has them."""
    dense = chain([784, 100, 50, 10])
    whole = [cost.flash for cost in api.texts_of(dense, "net", "net.h", target="generic").costs]
    for width, zeros, title in [(1, 0.9, "dense, sparse 1x1"), (4, 0.7, "dense, sparse 1x4"), (1, 0.4, "dense")]:
        texts = api.texts_of(thinned(dense, zeros, width), "net", "net.h", target="generic")
        assert [cost.title for cost in texts.costs[:2]] == [title] * 2
        assert title in texts.source.split("*/")[0]
        for cost, size in zip(texts.costs[:2], whole[:2], strict=True):
            assert cost.flash <= size and (cost.flash < size) == (title != "dense")
    thin = thinned(dense, 0.9)
    kept = int(np.count_nonzero(thin.layers[0].kernel))
    first = api.texts_of(thin, "net", "net.h", target="cortex-m4").costs[0]
    # A byte and its gap of each weight; the count, bias and multiplier of each output; the layer's structure.
    assert first.flash == pytest.approx(2 * kept + (2 + 4 + 4) * 100, abs=60)
    assert first.multiply_adds == kept


def test_a_sparse_float_model_is_the_dense_one_bit_by_bit(tmp_path, monkeypatch):
    model = sparse_float_model()
    to_c(sparsify(model, choice="1x1"), tmp_path / "net.c")
    assert verify_c(tmp_path / "net.c", model).agrees
    called = set(re.findall(r"    (float_\w+)\(&", (tmp_path / "net.c").read_text()))
    assert called == {"float_sparse_of_1", "float_sparse_of_4", "float_dense"}
    x = np.random.default_rng(0).normal(size=(40, 600)).astype(np.float32)
    (sparse,) = run_all(tmp_path, write_sources(tmp_path, [model]), [x], [3], ["cc", "-O1"], "float")
    monkeypatch.setattr(floats, "sparse_kernel", lambda kernel, dense_bytes: None)
    (dense,) = run_all(tmp_path, write_sources(tmp_path, [model]), [x], [3], ["cc", "-O1"], "float")
    np.testing.assert_array_equal(sparse, dense)


def test_every_activation_of_a_float_model(tmp_path):
    names = sorted(set(ACTIVATIONS) - {"linear"})
    models = [Sequential([Input((5,)), Dense(7, name), Dense(3)]) for name in names]
    for model in models:
        model.build((None, 5))
    sources = write_sources(tmp_path, models)
    x = (np.random.default_rng(0).normal(size=(40, 5)) * 3).astype(np.float32)
    made = run_all(tmp_path, sources, [x] * len(models), [3] * len(models), ["cc", "-O0"], "float")
    for name, model, outputs in zip(names, models, made, strict=True):
        np.testing.assert_allclose(outputs, model.predict(x), rtol=2e-5, atol=2e-6, err_msg=name)


def test_there_is_a_form_of_every_activation():
    assert set(EXPRESSIONS) | set(ROW_FUNCTIONS) == set(ACTIVATIONS)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["int", "class", "main", "naïve", "../net", "net/x", "2net", "", "_net", "net-1", "a" * 32, "net\n", None, 3],
)
def test_names_that_c_has_no_use_for_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="give another"):
        to_c(chain([2, 2]), tmp_path / ("x.c" if name is not None else "double.c"), name=name)
    assert not list(tmp_path.iterdir())


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in '\.c'"):
        to_c(chain([2, 2]), tmp_path / "net.cpp")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        to_c(chain([2, 2]), tmp_path / "none" / "net.c")
    (tmp_path / "net.c").mkdir()
    with pytest.raises(IsADirectoryError):
        to_c(chain([2, 2]), tmp_path / "net.c", verify=False)
    assert [path.name for path in tmp_path.iterdir()] == ["net.c"]
    wrong = chain([2, 3, 2], seed=5)
    honest = api.texts_of
    monkeypatch.setattr(api, "texts_of", lambda model, *args, **more: honest(wrong, *args, **more))
    with pytest.raises(RuntimeError, match="does not compute what nbdense computes"):
        to_c(chain([2, 3, 2]), tmp_path / "other.c")
    assert [path.name for path in tmp_path.iterdir()] == ["net.c"]


def test_equal_models_give_equal_bytes(tmp_path):
    for name in "ab":
        to_c(chain([5, 4, 3]), tmp_path / f"{name}.c", name="net", verify=name == "a")
    a, b = ((tmp_path / f"{name}.c").read_text() for name in "ab")
    assert a == b.replace('"b.h"', '"a.h"')


def test_float_layers_among_integers_are_refused_by_name(tmp_path):
    d = Drawn(0)
    form = d.format(0.03)
    gamma = {"gamma": np.ones(4, np.float32)}
    layers = [d.dense(3, 4, d.format(0.02), form, name="first"), FloatLayer("norm", "layer_norm", 4, gamma, alpha=1e-3)]
    with pytest.raises(
        ValueError, match=r"layer 'norm' \(float layer_norm\) has no form in C.*fold_batch_normalization"
    ):
        to_c(QuantizedNetwork(layers), tmp_path / "net.c")
    with pytest.raises(ValueError, match=r"layer 'dy' \(.*scheme='static'"):
        to_c(QuantizedNetwork([d.dynamic(3, 4)]), tmp_path / "net.c")
    with pytest.raises(TypeError, match="expected a model"):
        to_c("model", tmp_path / "net.c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "z80"}, "target must be one of 'generic'"),
        ({"memory": "heap"}, "memory must be one of"),
        ({"class_names": ["a"]}, "class_names must be 2"),
    ],
)
def test_options_that_there_are_not_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_c(chain([3, 2]), tmp_path / "net.c", **options)


def test_labels_and_names_of_layers_cannot_leave_their_places(tmp_path):
    d = Drawn(0)
    layer = d.dense(3, 2, d.format(0.02), d.format(0.03), name='*/ int x; /* ??/ ü "\n')
    names = ['a"b\\', "ü??=\n"]
    to_c(QuantizedNetwork([layer]), tmp_path / "net.c", class_names=names)
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "net.h"\nint main(void){fputs(net_labels[0],stdout);'
        "putchar(0);fputs(net_labels[1],stdout);return 0;}\n"
    )
    subprocess.run(["cc", "-std=c99", *STRICT, "net.c", "main.c", "-o", "out"], cwd=tmp_path, check=True)
    shown = subprocess.run(["./out"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert shown.decode().split("\0") == names


def test_memory_of_the_caller(tmp_path):
    network = chain([20, 64, 64, 2])
    to_c(network, tmp_path / "net.c", memory="caller")
    assert "#define NET_MEMORY 128\n" in (tmp_path / "net.h").read_text()  # two of 64, the input in one
    text = (tmp_path / "net.c").read_text().split("#ifdef NET_SELF_TEST")[0]
    assert not re.search(r"static int8_t \w+\[", text)


def test_verify_c_sees_another_model(tmp_path):
    path = tmp_path / "net.c"
    to_c(chain([6, 5, 4]), path)
    assert verify_c(path, chain([6, 5, 4])).agrees
    assert not verify_c(path, chain([6, 5, 4], seed=1)).agrees
    with pytest.raises(ValueError, match="has 7 inputs"):
        verify_c(path, chain([7, 5, 4]))
    with pytest.raises(RuntimeError, match="no compiler 'nonesuch'"):
        verify_c(path, chain([6, 5, 4]), compiler="nonesuch")
