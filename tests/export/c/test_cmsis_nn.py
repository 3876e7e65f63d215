"""C that calls CMSIS-NN, beside a stand-in for it that is written from its documentation: not CMSIS-NN itself."""

import subprocess

import numpy as np
import pytest

from nbdense.export import to_c, to_object, verify_c
from nbdense.quant.model.network import QuantizedNetwork
from tests.support.c_programs import STRICT
from tests.support.drawn_networks import Drawn, draw_network
from tests.support.edge_networks import chain, tables, thinned
from tests.support.source_tree import ROOT

STAND_IN = ROOT / "tests" / "support" / "cmsis_nn"
BUILDS = {"gemmlowp": [], "tflite": ["-DCMSIS_NN_USE_SINGLE_ROUNDING"]}  # how CMSIS-NN rounds so


def networks_of(rounding):
    """Clamps, tables, sums, positions, and layers that keep loops of their own: 4 bits, and sparse ones."""
    drawn = (draw_network(seed) for seed in range(0, 12, 2))
    made = [
        QuantizedNetwork(network.layers, "int8", rounding) for network in drawn if network.activation_dtype == "int8"
    ]
    made += [chain([33, 17, 6], rounding=rounding), chain([20, 64, 64, 2], 1, rounding=rounding, activation="relu6")]
    made += [chain([9, 8, 3], rounding=rounding, granularity="per_tensor", softmax=True)]
    made += [tables(seed, "int8", rounding, name) for seed, name in enumerate(("tanh", "silu"))]
    return [*made, chain([12, 9, 4], rounding=rounding, bits=4), thinned(chain([60, 40, 5], rounding=rounding), 0.9)]


@pytest.mark.parametrize("rounding", BUILDS)
def test_integers_are_nbdense_s(rounding, tmp_path):
    networks, builds = networks_of(rounding), [[], ["-DWITH_SUMS"]]
    assert len(networks) > 8
    for number, network in enumerate(networks):
        to_c(network, tmp_path / "net.c", target="cmsis-nn")
        options = [*BUILDS[rounding], *builds[number % 2], "-I", str(STAND_IN), str(STAND_IN / "arm_nnfunctions.c")]
        result = verify_c(tmp_path / "net.c", network, options=options)
        assert result.agrees, (number, str(result))
    text = (tmp_path / "net.c").read_text()  # the last one has a layer of each kind
    assert "dense_by_cmsis_nn(&" in text and "sparse_of_1(&" in text and "dense_by_rows" not in text


@pytest.mark.parametrize("rounding", BUILDS)
def test_source_is_strict_and_sees_the_other_build(rounding, tmp_path):
    network = tables(1, "int8", rounding, "tanh")
    to_c(network, tmp_path / "net.c", target="cmsis-nn", memory="caller")
    command = ["cc", "-std=c99", "-fsyntax-only", *STRICT, "-I", str(STAND_IN), "net.c"]
    for other, options in BUILDS.items():
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (other == rounding), done.stderr
        assert (other == rounding) or "CMSIS-NN has to be built with" in done.stderr


def test_what_cmsis_nn_computes_otherwise_is_refused(tmp_path):
    d = Drawn(0)
    far = d.dense(9, 4, d.format(0.02), d.format(0.03), name="far")
    far = far.replaced(kernel_scales=far.kernel_scales * np.float32(2**28))
    for network, words in [
        (chain([9, 4]), r"'dense_0': CMSIS-NN does not round as 'onnx' does: .*rounding='gemmlowp'"),
        (chain([9, 4], rounding="ruy"), "does not round as 'ruy' does"),
        (chain([9, 4], dtype="uint8", rounding="gemmlowp"), "CMSIS-NN has int8 alone: .*activation_dtype='int8'"),
        (QuantizedNetwork([far], rounding="gemmlowp"), "'far': CMSIS-NN cannot rescale its sums"),
    ]:
        with pytest.raises(ValueError, match=words):
            to_c(network, tmp_path / "net.c", target="cmsis-nn")
    with pytest.raises(ValueError, match="target must be a processor"):
        to_object(chain([9, 4], rounding="gemmlowp"), tmp_path / "net.o", "cmsis-nn")
    assert not list(tmp_path.iterdir())


def test_an_error_of_cmsis_nn_is_returned(tmp_path):
    to_c(chain([9, 4], rounding="gemmlowp"), tmp_path / "net.c", target="cmsis-nn")
    assert "-2 where CMSIS-NN reports an error" in (tmp_path / "net.h").read_text()
    (tmp_path / "main.c").write_text(
        '#include "net.h"\nint main(void) { static int8_t x[9], y[4]; static float r[9], s[4];\n'
        "    return net_predict(x, y) == -2 && net_predict_values(r, s) == -2 ? 0 : 1; }\n"
    )
    stand_in = ["-DFAILS", "-I", str(STAND_IN), str(STAND_IN / "arm_nnfunctions.c")]
    command = ["cc", "-std=c99", *stand_in, "net.c", "main.c", "-o", "out"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run(["./out"], cwd=tmp_path, check=False).returncode == 0
