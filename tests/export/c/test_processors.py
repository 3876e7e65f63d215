"""C on other processors: compiled by the ziglang wheel, executed by unicorn and wasmtime."""

import functools

import numpy as np
import pytest

from benchmarks.edge.emulator import Machine, Wasm, link, sizes
from nbdense.export.c.targets import TARGETS
from nbdense.quant.model.model import QuantizedModel
from tests.support.c_programs import STRICT, write_sources
from tests.support.edge_networks import chain, integers_for, thinned

EMULATED = ["cortex-m0plus", "cortex-m4", "cortex-m7", "aarch64", "riscv32", "wasm32"]
WIDTHS = [784, 66, 33, 10]


@pytest.fixture(scope="module")
def networks():
    """Networks of MNIST's size, with widths that leave something over; sparse ones of weights, and of blocks."""
    dense = chain(WIDTHS)
    return {"dense": dense, "1x1": thinned(dense, 0.9), "1x4": thinned(dense, 0.8, 4)}


@pytest.fixture(scope="module")
def programs(tmp_path_factory, networks):
    @functools.cache
    def program(target, kind):
        folder = tmp_path_factory.mktemp(target)
        (source,) = write_sources(folder, [networks[kind]], target=target)
        return link(source, "m0_predict", target, folder / "program")

    return program


@pytest.mark.parametrize("kind", ["dense", "1x1", "1x4"])
@pytest.mark.parametrize("target", EMULATED)
def test_fifty_rows_are_nbdense_s(target, kind, programs, networks):
    network, program = networks[kind], programs(target, kind)
    q, x = integers_for(network, 50)
    machine = Wasm(program, "m0_predict") if target == "wasm32" else Machine(program, target)
    made = np.stack([machine.call(row, 10, np.int8).output for row in q])
    np.testing.assert_array_equal(made, QuantizedModel(network).predict_integers(x))


@pytest.mark.parametrize(("target", "most"), [("cortex-m4", 1.6), ("cortex-m0plus", 5.0)])
def test_instructions_a_multiply_add(target, most, programs, networks):
    network, program = networks["dense"], programs(target, "dense")
    machine = Machine(program, target)
    q, _ = integers_for(network, 1)
    run = machine.call(q[0], 10, np.int8, counted=True)
    assert run.instructions / sum(layer.multiply_adds for layer in network.layers) < most
    size = sizes(program)
    assert size.text <= (1536 if target == "cortex-m4" else 2048)
    assert size.data + run.stack <= 66 + 33 + 256


@pytest.mark.parametrize("target", ["cortex-m0plus", "cortex-m4"])
@pytest.mark.parametrize("options", [("-O0",), ("-O2", "-fno-omit-frame-pointer", *STRICT)], ids=("-O0", "strict"))
def test_assembly_at_other_levels(target, options, tmp_path):
    """Assembly with nearly all registers, where a compiler needs some for itself; of bytes without a sign too."""
    network = chain([33, 17, 6], dtype="uint8", rounding="tflite")
    (source,) = write_sources(tmp_path, [network], target=target)
    machine = Machine(link(source, "m0_predict", target, tmp_path / "program", options), target)
    q, x = integers_for(network, 3)
    made = np.stack([machine.call(row, 6, np.uint8).output for row in q])
    np.testing.assert_array_equal(made, QuantizedModel(network).predict_integers(x))


def test_targets_that_are_not_emulated_here_are_few():
    assert set(TARGETS) - set(EMULATED) == {"generic", "cortex-m33", "cmsis-nn"}


@pytest.mark.parametrize(("target", "most", "ram"), [("cortex-m4", 2.3, 316), ("cortex-m0plus", 6.0, 376)])
def test_a_small_network_with_real_numbers_at_its_ends(target, most, ram, tmp_path):
    """All that lies outside of the loops counts here; the integers of the input need no memory of their own."""
    network = chain([20, 64, 64, 2])
    (source,) = write_sources(tmp_path, [network], target=target)
    q, x = integers_for(network, 1)
    integers = Machine(link(source, "m0_predict", target, tmp_path / "integers", ("-Os",)), target)
    counted = integers.call(q[0], 2, np.int8, counted=True).instructions
    assert counted / sum(layer.multiply_adds for layer in network.layers) < most
    program = link(source, "m0_predict_values", target, tmp_path / "values", ("-Os",))
    run = Machine(program, target).call(x[0], 2, np.float32, counted=True)
    np.testing.assert_array_equal(run.output, QuantizedModel(network).predict(x)[0])
    assert sizes(program).data == 128
    assert 128 + run.stack < ram
