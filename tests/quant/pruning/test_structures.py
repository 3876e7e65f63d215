"""Pieces of kernels: blocks, N of M, layers that are exempted; and the sparsity asked for, exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbdense as nb
from nbdense.quant import prune
from nbdense.quant.pruning import sparsity_of
from tests.reference import naive_pruning
from tests.support.strategies import SEEDS, SIZES


def model_of(*widths, seed=3):
    layers = [nb.Dense(width, "relu", name=f"d{i}") for i, width in enumerate(widths[1:])]
    model = nb.Sequential([nb.Input((widths[0],)), *layers])
    model.seed = seed
    return model


def kernels(model):
    return [view for name, view in model.parameters.items() if name.endswith("kernel")]


@given(SIZES, SIZES, st.tuples(st.integers(1, 9), st.integers(1, 17)), st.floats(0, 0.99), SEEDS)
def test_blocks_drawn(n_in, n_out, size, sparsity, seed):
    model = model_of(n_in, n_out)
    kernel = kernels(model)[0]
    kernel[...] = np.random.default_rng(seed).normal(size=kernel.shape)
    pruned = prune(model, sparsity, structure="block", block_size=size)
    expected = naive_pruning.block_mask(kernel.astype(np.float64), size, sparsity)
    np.testing.assert_array_equal(kernels(pruned)[0], np.where(expected, kernel, 0))
    np.testing.assert_array_equal(pruned.network.tensors(pruned.network.mask)["d0/kernel"], expected)


def test_blocks_are_ranked_in_all_layers_or_in_each():
    model = model_of(16, 32, 32)
    kernels(model)[1][...] *= 100
    together = prune(model, 0.25, structure="block", block_size=(1, 16))
    assert [int((kernel == 0).sum()) for kernel in kernels(together)] == [24 * 16, 0]
    apart = prune(model, 0.25, structure="block", block_size=4, scope="layer")
    assert [int((kernel == 0).sum()) for kernel in kernels(apart)] == [8 * 16, 16 * 16]
    default = prune(model, 0.25, structure="block")
    np.testing.assert_array_equal(default.network.mask, together.network.mask)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 2), (3, 5)])
def test_n_of_m(n, m):
    model = model_of(m * 3, m * 2, 7)
    pruned = prune(model, 1 - n / m, structure=f"{n}:{m}")
    for kernel, before in zip(kernels(pruned), kernels(model), strict=True):
        mask = naive_pruning.n_of_m_mask(before, n, m)
        np.testing.assert_array_equal(kernel, np.where(mask, before, 0))
        assert ((kernel.reshape(-1, m, kernel.shape[1]) != 0).sum(axis=1) == n).all()


@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.9375, 0.987])
def test_the_sparsity_is_met_exactly(sparsity):
    model = model_of(37, 29, 11)
    weights = 37 * 29 + 29 * 11
    pruned = prune(model, sparsity)
    assert sum(int((kernel == 0).sum()) for kernel in kernels(pruned)) == round(sparsity * weights)
    assert sparsity_of(pruned.network) == round(sparsity * weights) / weights


def test_layers_that_are_exempted_stay_with_the_masks_that_they_have():
    block = nb.Residual([nb.Dense(8, name="inside")], name="block")
    model = nb.Sequential([nb.Input((8,)), nb.Dense(8, name="first"), block, nb.Dense(2, name="last")])
    pruned = prune(model, 0.5, exempt=["last", "block/inside"])
    zeros = {name: int((view == 0).sum()) for name, view in pruned.parameters.items() if name.endswith("kernel")}
    assert zeros == {"first/kernel": 32, "block/inside/kernel": 0, "last/kernel": 0}
    again = prune(pruned, 0.75, exempt=("first", "last"))
    zeros = {name: int((view == 0).sum()) for name, view in again.parameters.items() if name.endswith("kernel")}
    assert zeros == {"first/kernel": 32, "block/inside/kernel": 48, "last/kernel": 0}
    mask = again.network.tensors(again.network.mask)
    assert {name: int((mask[name] == 0).sum()) for name in zeros} == zeros


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"structure": "rows"}, "structure must be 'unstructured', 'block', 'neuron', or 'n:m'.*got 'rows'"),
        ({"structure": "4:4"}, "keeps n of each m weights, 1 <= n < m, got '4:4'"),
        ({"structure": "1:2", "sparsity": 0.6}, "structure '1:2' has the sparsity 0.5, got 0.6"),
        ({"structure": "2:4"}, r"'2:4': Dense layer 'd0' has 6 inputs, which 4 does not divide; exempt it"),
        ({"structure": "block", "block_size": (1, 0)}, "block_size must be a whole number of at least 1, got 0"),
        ({"structure": "block", "block_size": (1, 2, 3)}, "block_size must be a number, or"),
        ({"block_size": 4}, "block_size is of structure 'block', and structure is 'unstructured'"),
        ({"scope": "row"}, "scope must be 'global' or 'layer', got 'row'"),
        ({"criterion": "luck"}, "criterion must be 'magnitude' or 'lamp' or 'movement' or 'second_order', got 'luck'"),
        ({"exempt": "d7"}, "exempt: no Dense layer named 'd7'; there are: d0, d1"),
        ({"exempt": ("d0", "d1")}, "all Dense layers are exempted"),
        ({"exempt": [3]}, "exempt must be names of layers, got 3"),
        ({"update": True}, "update=True goes with criterion='second_order', got 'magnitude'"),
    ],
)
def test_options_are_refused_by_name(options, words):
    model = model_of(6, 8, 3)
    before = model.network.params.copy()
    with pytest.raises(ValueError, match=f"^prune: .*{words}"):
        prune(model, **{"sparsity": 0.5, **options})
    np.testing.assert_array_equal(model.network.params, before)
    assert model.network.mask is None


def test_a_mask_of_another_shape_is_refused():
    model = model_of(6, 8, 3)
    model.compile("sgd", "mse")
    x, y = np.ones((4, 6)), np.ones((4, 3))
    for mask in (np.ones(5, np.float32), np.ones(model.network.params.shape, bool)):
        model.network.mask = mask
        before = model.network.params.copy()
        for call in (lambda: model.fit(x, y, verbose=0), lambda: model.set_weights(model.get_weights())):
            with pytest.raises(ValueError, match="network.mask must have an element for each of the parameters"):
                call()
        np.testing.assert_array_equal(model.network.params, before)
