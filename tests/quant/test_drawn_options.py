"""quantize() with drawn options on drawn models: the file holds the same integers, and they predict the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import nbdense as nb
from nbdense.quant.layers.checks import LIMITS, ROUNDINGS
from nbdense.quant.schemes.options import RANGE_METHODS, SOFTMAXES, SOLVERS
from nbdense.quant.schemes.table import SCHEMES
from tests.support.stacks import data
from tests.support.strategies import SEEDS, model_of, stacks


@st.composite
def options(draw):
    """Options of `quantize` that go together."""
    chosen = {"scheme": draw(st.sampled_from(list(SCHEMES)))}
    choices = {"bits": [8, 4], "granularity": SCHEMES[chosen["scheme"]].granularities, "solver": SOLVERS}
    if chosen["scheme"] == "weight_only":
        choices["block_size"] = [1, 3, 8, 32]
    if chosen["scheme"] == "static":
        choices |= {"activation_dtype": list(LIMITS), "range_method": RANGE_METHODS, "softmax": SOFTMAXES}
        choices |= {"symmetric": [False, True], "rounding": ROUNDINGS}
    choices |= {"equalize": [False, True], "bias_correction": [False, True]}
    return chosen | {name: draw(st.sampled_from(values)) for name, values in choices.items()}


@given(stacks(), options(), SEEDS)
def test_a_round_trip_loses_nothing(tmp_path_factory, stack, options, seed):
    model = model_of(stack, seed=seed)
    quantized = nb.quantize(model, data(model, 60), **options)
    path = tmp_path_factory.mktemp("drawn") / "model"
    quantized.save(path)
    loaded = nb.load_model(path)
    (tensors, config), (others, found) = quantized.network.to_tensors(), loaded.network.to_tensors()
    assert tensors.keys() == others.keys() and config == found
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (others[name].dtype, others[name].shape)
        np.testing.assert_array_equal(tensor, others[name], err_msg=name)
    x = data(model, 20, seed=1)
    np.testing.assert_array_equal(loaded.predict(x), quantized.predict(x))
    assert loaded.report("dict", timings=False) == quantized.report("dict", timings=False)
    assert loaded.size_bytes == quantized.size_bytes
