"""The pieces of the update: how threads share them."""

import copy

import numpy as np
import pytest

from nbdense.engine import program
from nbdense.engine.rows.slabs import _cut
from nbdense.engine.tables import PAD
from nbdense.optimizers import SGD, Adam
from tests.support.builders import make_model
from tests.support.compiled import compiled


@compiled
def cuts(layers, slabs, bound, out):
    for i in range(slabs.size):
        out[i] = _cut(layers[slabs[i]["layer"]], slabs[i], bound)


@pytest.mark.parametrize("widths", [(20, 64, 64, 2), (54, 256, 128, 7), (1, 1), (5, 20, 3), (130, 3, 70, 300)])
def test_threads_take_each_row_of_a_kernel_once_and_equal_parts(widths):
    network = make_model(list(widths), ["relu"] * (len(widths) - 1), bias=False).network  # of every other layer
    slabs = network.slabs
    kernels = slabs["first"] >= 0
    size = int(slabs["ends"][-1])
    for threads in range(1, 12):
        ends = np.empty((threads + 1, slabs.size), np.int64)
        for thread in range(threads + 1):
            cuts(network.layers, slabs, size * thread // threads, ends[thread])
        np.testing.assert_array_equal(ends[0][kernels], slabs["first"][kernels])
        np.testing.assert_array_equal(ends[-1][kernels], slabs["last"][kernels])
        rows = np.diff(ends, axis=0)
        assert (rows[:, kernels] >= 0).all()
        blocks = (ends - slabs["first"]) % PAD == 0
        assert (blocks | (ends == slabs["last"]))[:, kernels].all()
        width = network.layers["ld_out"][slabs["layer"]]
        most = (rows * width)[:, kernels].sum(1).max()
        assert most <= size / threads + PAD * width.max()  # half a block at each end


@pytest.mark.parametrize("optimizer", [Adam(0.01), SGD(0.1, momentum=0.9), Adam(0.01, use_ema=True)], ids=str)
def test_cut_slabs_change_no_bit(optimizer, monkeypatch):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(70, 90)), rng.normal(size=(70, 2))
    run_steps, found = program.run_steps, []
    for threads in (1, 2, 3, 5, 8, 13):

        def shared(*arguments, threads=threads):
            run = arguments[4]
            run["threads"], run["launcher"] = threads, 0  # one thread does the work of all, in turn
            return run_steps(*arguments)

        monkeypatch.setattr(program, "run_steps", shared)
        model = make_model([90, 75, 64, 2], ["relu", "relu", "linear"], optimizer=copy.copy(optimizer), dtype="float32")
        model.fit(x, y, 16, epochs=2, verbose=0)
        found.append((model.network.params.copy(), model.state[1:].copy()))
    for params, slots in found[1:]:
        np.testing.assert_array_equal(params, found[0][0])
        np.testing.assert_array_equal(slots, found[0][1])
