"""Estimates, beside what the compiler makes and the emulator counts."""

import json

import numpy as np
import pytest

from benchmarks.edge.emulator import Machine, link, sizes
from nbdense.export import estimate, to_object
from nbdense.export.c.api import texts_of
from nbdense.export.c.costs.measured import CODE, INSTRUCTIONS
from nbdense.export.c.targets import TARGETS
from nbdense.layers import Dense, Input
from nbdense.models import Sequential
from tests.support.c_programs import write_sources
from tests.support.edge_networks import chain, integers_for, thinned

# Of these widths none was measured.
NETWORKS = [
    chain([48, 40, 36, 5], 7),
    chain([100, 50, 10], 8, "uint8", "tflite", softmax=True),
    chain([64, 96, 4], 9, bits=4),
    thinned(chain([90, 60, 30, 5], 6), 0.85),
    thinned(chain([80, 50, 11], 5, "uint8", "tflite"), 0.7, 4),
]


@pytest.mark.parametrize("target", [target for target in CODE if target != "wasm32"])
def test_flash_and_ram_are_the_object_s(target, tmp_path):
    for network in NETWORKS:
        to_object(network, tmp_path / "net.o", target, verify=False)
        size, said = sizes(tmp_path / "net.o"), estimate(network, target)
        assert said.flash == pytest.approx(size.text + size.constants, rel=0.02)
        assert said.ram == pytest.approx(size.data, rel=0.02)


def test_flash_of_a_module(tmp_path):
    for network in NETWORKS:
        to_object(network, tmp_path / "net.wasm", "wasm32", verify=False)
        assert estimate(network, "wasm32").flash == pytest.approx((tmp_path / "net.wasm").stat().st_size, rel=0.02)


@pytest.mark.parametrize("target", sorted(INSTRUCTIONS))
def test_instructions_are_the_emulator_s(target, tmp_path):
    network = NETWORKS[0]
    (source,) = write_sources(tmp_path, [network], target=target)
    machine = Machine(link(source, "m0_predict", target, tmp_path / "program", ("-Os",)), target)
    q, _ = integers_for(network, 1)
    counted = machine.call(q[0], network.n_out, np.int8, counted=True).instructions
    assert estimate(network, target).instructions == pytest.approx(counted, rel=0.1)


def test_estimates_of_all_targets():
    assert set(CODE) == {target for target, row in TARGETS.items() if row.flags}
    said = estimate(chain([20, 64, 64, 2]), "cortex-m33")
    assert said.multiply_adds == 20 * 64 + 64 * 64 + 64 * 2 and len(said.layers) == 3
    assert str(said).startswith("Cortex-M33: ") and said.instructions is not None
    text, described = said.report(), json.loads(json.dumps(said.report("dict")))
    assert text.splitlines()[0] == str(said) and text.endswith(said.report("table"))
    assert said.report("table").splitlines()[-1].split() == [
        "all", f"{said.multiply_adds:,}", f"{sum(layer.flash for layer in said.layers):,}", str(said.ram)
    ]  # fmt: skip
    assert described["ram"] == 128 and [layer["ram"] for layer in described["layers"]] == [64, 64, 2]
    with pytest.raises(ValueError, match="form must be 'text'"):
        said.report("html")
    assert estimate(chain([3, 2]), "wasm32").instructions is None
    with pytest.raises(ValueError, match="target must be one of"):
        estimate(chain([3, 2]), "generic")
    model = Sequential([Input((3,)), Dense(2)])
    model.build((None, 3))
    with pytest.raises(ValueError, match="quantize the model first"):
        estimate(model)


def test_sources_begin_with_the_estimate():
    network = NETWORKS[0]
    texts = texts_of(network, "net", "net.h", target="cortex-m4")
    assert f" * {estimate(network, 'cortex-m4')}\n" in texts.source.split("*/")[0]
    assert "Estimated" not in texts_of(network, "net", "net.h", target="generic").source
