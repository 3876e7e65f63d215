"""Files of drawn models: what is loaded is what was saved, to the bit, and goes on as it would have."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import nbdense as nb
from nbdense.optimizers import OPTIMIZERS
from tests.support.stacks import data
from tests.support.strategies import SEEDS, model_of, stacks

LOSSES = st.sampled_from(["mse", "huber", "mae", "log_cosh"])


@st.composite
def optimizers(draw):
    rate = draw(st.floats(1e-4, 1e-2) | st.builds(nb.CosineDecay, st.floats(1e-4, 1e-2), st.integers(1, 50)))
    options = {"weight_decay": st.floats(0, 0.1), "clipnorm": st.floats(0.1, 2), "use_ema": st.booleans()}
    return draw(st.sampled_from(list(OPTIMIZERS.values())))(rate, **draw(st.fixed_dictionaries({}, optional=options)))


@given(stacks(), st.sampled_from(["float32", "float64"]), optimizers(), LOSSES, st.integers(0, 2), SEEDS)
def test_a_round_trip_loses_nothing(tmp_path_factory, stack, dtype, optimizer, loss, epochs, seed):
    model = model_of(stack, dtype, seed)
    model.compile(optimizer, loss, metrics=["mae"])
    x = data(model, 9)
    y = np.random.default_rng(seed).uniform(size=(9, *model.network.output_shape))
    model.fit(x, y, 4, epochs=epochs, verbose=0)
    path = tmp_path_factory.mktemp("drawn") / "model"
    model.save(path)
    loaded = nb.load_model(path)
    assert [(layer.kind, layer.get_config()) for layer in loaded.layers] == [
        (layer.kind, layer.get_config()) for layer in model.layers
    ]
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert (loaded.dtype, loaded.input_shape, loaded.epochs_trained) == (model.dtype, model.input_shape, epochs)
    for _ in range(2):
        np.testing.assert_array_equal(loaded.network.params, model.network.params)
        np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
        for each in (model, loaded):
            each.fit(x, y, 4, epochs=epochs + 1, initial_epoch=epochs, verbose=0)
