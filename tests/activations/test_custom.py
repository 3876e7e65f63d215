"""Activations of a user's own: compiled by themselves, checked, saved by name."""

import math
import os
import subprocess
import sys
import threading
import warnings

import numba
import numpy as np
import pytest

import nbdense as nb
from nbdense import activations
from nbdense._compile.loops import LOOPS, loop
from nbdense._compile.policy import JIT
from nbdense._registry import custom_objects, find_custom
from nbdense.activations import ACTIVATIONS, ON_DEMAND, custom
from nbdense.files import FileFormatError
from nbdense.layers import Activation, Dense, Input
from nbdense.models import Sequential, load_model
from tests.support.builders import make_model


def _swish_like(z):
    return z / (1.0 + np.exp(-z))


def _swish_like_slope(z):
    s = 1.0 / (1.0 + np.exp(-z))
    return s + z * s * (1.0 - s)


MINE = custom("mine", _swish_like, _swish_like_slope)
SINE = custom("sine", lambda z: math.sin(z), lambda z: math.cos(z))


def pair(given, standard, *, dtype, inside=True, widths=(3, 20, 5)):
    """Two equal models, one with an activation of one's own, one with the table's."""
    models = []
    for activation in (given, standard):
        names = [activation, activation] if inside else ["linear", "linear"]
        model = make_model(list(widths), names, dtype=dtype, optimizer="adam")
        if not inside:
            rows = [Input((widths[0],))]
            for layer in model.layers:
                rows += [layer, Activation("tanh"), Activation(activation)]
            weights = model.get_weights()
            model = Sequential(rows, dtype=dtype)
            model.seed = 1
            model.compile("adam", "mse")
            model.set_weights(weights)
        models.append(model)
    return models


@pytest.mark.kernels
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.double)])
@pytest.mark.parametrize("inside", [True, False])
def test_equals_the_tables(dtype, inside):
    """silu, written by hand, learns as silu does: in Dense layers and behind another activation."""
    rng = np.random.default_rng(1)
    rows = 40 if JIT else 6
    x, y = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 5))
    mine, silu = pair(MINE, "silu", dtype=dtype, inside=inside)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(mine.predict(x), silu.predict(x), atol=tolerance)
    losses = [model.fit(x, y, 4, epochs=2, verbose=0).history["loss"] for model in (mine, silu)]
    np.testing.assert_allclose(*losses, rtol=10 * tolerance)
    for a, b in zip(mine.get_weights(), silu.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=100 * tolerance)


@pytest.mark.kernels
@pytest.mark.double
def test_two_of_ones_own_in_one_network():
    rng = np.random.default_rng(2)
    model = make_model([3, 4, 4, 2], [MINE, SINE, MINE])
    assert model.network.layers["activation"].tolist() == [ON_DEMAND, ON_DEMAND + 1, ON_DEMAND]
    x = rng.normal(size=(5, 3))
    a, b, c = (w.kernel for w in model.network.rows())
    d, e, f = (w.bias for w in model.network.rows())
    expected = _swish_like(np.sin(_swish_like(x @ a + d) @ b + e) @ c + f)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12)
    assert [row.activation.name for row in model.network.rows()] == ["mine", "sine", "mine"]


def test_bits_do_not_depend_on_threads():
    """Large enough that the program runs in parallel; predictions from two Python threads at once too."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(1024, 200)).astype("f"), rng.normal(size=(1024, 10)).astype("f")
    weights, outputs = [], []
    threads = numba.get_num_threads()
    for count in (1, 2):
        numba.set_num_threads(min(count, threads))
        try:
            model = make_model([200, 300, 10], [MINE, SINE], dtype="float32", optimizer="adam")
            model.fit(x, y, 256, epochs=2, verbose=0)
            weights.append(model.get_weights())
            outputs.append(model.predict(x))
        finally:
            numba.set_num_threads(threads)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(*outputs)

    found = {}
    workers = [threading.Thread(target=lambda i=i: found.update({i: model.predict(x)})) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i in range(2):
        np.testing.assert_array_equal(found[i], outputs[0])


def test_threads_that_compile_at_once_get_one_loop():
    def twice(z):
        return 2.0 * z

    found = []
    workers = [threading.Thread(target=lambda: found.append(loop("forward", "float32", twice))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(found)) == 1 and found[0] in LOOPS


def test_save_and_load(tmp_path):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    model = make_model([3, 7, 2], [MINE, "linear"], optimizer="adam")
    model.fit(x, y, 8, verbose=0)
    model.save(tmp_path / "m.nbd")
    assert model.layers[0].get_config()["activation"] == {"custom": "mine"}
    with pytest.raises(FileFormatError, match=r"activation 'mine' is a custom one: pass it, as in custom_objects="):
        load_model(tmp_path / "m.nbd")
    with custom_objects({"mine": MINE}):
        loaded = load_model(tmp_path / "m.nbd")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    for one in (model, loaded):
        one.fit(x, y, 8, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_custom_objects_last_as_long_as_their_block():
    with custom_objects({"mine": MINE}), custom_objects({"sine": SINE}), custom_objects(None):
        assert activations.get({"custom": "mine"}) is MINE
        assert activations.get({"custom": "sine"}) is SINE
        elsewhere = []

        def look():
            with pytest.raises(ValueError, match="mine") as caught:
                find_custom("activation", "mine", object)
            elsewhere.append(caught)

        worker = threading.Thread(target=look)
        worker.start()
        worker.join()
        assert len(elsewhere) == 1
    with pytest.raises(ValueError, match="'mine' is a custom one"):
        activations.get({"custom": "mine"})
    message = "'mine' must be a custom activation, got <function"
    with pytest.raises(ValueError, match=message), custom_objects({"mine": _swish_like}):
        activations.get({"custom": "mine"})
    for wrong in (["mine"], {1: MINE}, "mine"):
        with pytest.raises(ValueError, match="custom_objects must be a dict"), custom_objects(wrong):
            pass


def test_a_wrong_derivative_is_warned_of():
    with pytest.warns(UserWarning, match=r"activation 'cube': derivative\(.*\) is .*, but forward changes there by"):
        custom("cube", lambda z: z**3, lambda z: 2 * z**2)
    with pytest.warns(UserWarning, match="is nan, but"):
        custom("holes", lambda z: z, lambda z: math.log(z) * 0 + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        custom("cube", lambda z: z**3, lambda z: 3 * z**2)
        custom("root", lambda z: math.sqrt(z), lambda z: 0.5 / math.sqrt(z))  # of no negative number
        custom("hat", lambda z: max(1.0 - abs(z), 0.0), lambda z: 0.0 if abs(z) > 1 else -1.0 if z > 0 else 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("relu", abs, abs), "'relu' is the name of one that is there already"),
        (("swish", abs, abs), "'swish' is the name"),
        (("", abs, abs), "name must be a string"),
        ((3, abs, abs), "name must be a string"),
        (("mine", abs, 1.0), "'mine': derivative must be a function"),
        (("mine", None, abs), "'mine': forward must be a function"),
        (("mine", lambda z: "a", abs), r"'mine': forward\(.*\) must return a number"),
        (("mine", lambda z, q: z, abs), r"'mine': forward\(.*\) must return a number: .*argument"),
        (("mine", abs, lambda z: None), r"'mine': derivative\(.*\) must return a number"),
    ],
)
def test_what_is_no_activation(arguments, message):
    with pytest.raises(ValueError, match=message):
        custom(*arguments)


def _uncompilable(z):
    return float(str(z).strip("()"))


def test_what_numba_cannot_compile_is_said_at_build():
    strange = custom("strange", _uncompilable, lambda z: 1.0)
    with pytest.raises(ValueError, match="'strange': numba cannot compile its function '_uncompilable': .*float"):
        Sequential([Dense(2, strange)]).build((None, 3))
    turned = activations.Activation("turned", ON_DEMAND, lambda z: 1j * z, lambda z: 1.0, False, "", own=True)
    with pytest.raises(ValueError, match="'turned': .* must return a real number, but returns complex128"):
        turned.calls("float64")


def test_what_numba_compiled_already_is_taken():
    sine = custom("sine", numba.njit(lambda z: math.sin(z)), numba.njit(lambda z: math.cos(z)))
    model = make_model([2, 3], [sine])
    x = np.random.default_rng(5).normal(size=(4, 2))
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(model.predict(x), np.sin(x @ kernel + bias), rtol=1e-12)


def test_to_onnx_refuses_by_name():
    from nbdense.export import to_onnx

    with pytest.raises(ValueError, match="layer 'dense_1'.*'mine' is one of your own"):
        to_onnx(make_model([3, 4, 2], ["relu", MINE]))


def test_no_parameter():
    with pytest.raises(ValueError, match="'mine' has no parameter alpha"):
        MINE.with_alpha(0.5)
    assert activations.serialize(MINE) == {"custom": "mine"}
    assert "mine" not in ACTIVATIONS


ONE_PROCESS = """
import math
import numpy as np
import nbdense as nb
from nbdense import activations

sine = activations.custom("sine", lambda z: math.sin(z), lambda z: math.cos(z))
model = nb.Sequential([nb.Input((3,)), nb.Dense(4, sine), nb.Dense(1)])
model.seed = 3
model.compile("sgd", "mse")
x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
model.fit(x, x[:, :1], verbose=0)
print(float(model.predict(x).sum()))
"""


def test_without_the_jit():
    """Plain Python gives what compiled code gives."""
    printed = []
    for disabled in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", ONE_PROCESS],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        printed.append(float(run.stdout))
    assert printed[0] == pytest.approx(printed[1], rel=1e-5)


def test_models_made_from_a_model_keep_its_custom_activations():
    """Without custom_objects: nothing is read from a file."""
    model = nb.Sequential([nb.Input((3,)), nb.Residual([nb.Dense(3, MINE)]), nb.Dense(2)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    expected = model.predict(x)
    np.testing.assert_array_equal(nb.prune(model, 0.0).predict(x), expected)
    np.testing.assert_array_equal(model.fold_batch_normalization().predict(x), expected)
    assert model.upto("residual").predict(x).shape == (5, 3)
