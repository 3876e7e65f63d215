"""The reference's own checks: central differences, hand-worked cases, exact rational arithmetic."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.reference import naive, naive_optimizers

F32 = np.float32
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- activations --


@pytest.mark.parametrize("name", naive.ACTIVATIONS)
def test_activation_derivative(name: str) -> None:
    f, df = naive.ACTIVATIONS[name]
    z = np.concatenate([np.linspace(-8.03, 8.03, 40), [-1e-3, 1e-3]])
    expected = np.array([naive.numerical_gradient(lambda v: f(v)[0], np.array([v]))[0] for v in z])
    assert_allclose(df(z), expected, rtol=1e-6, atol=1e-9)
    extreme = np.array([-1e4, -100.0, 0.0, 100.0, 1e4 if name != "exponential" else 700.0])
    assert np.isfinite(f(extreme)).all() and np.isfinite(df(extreme)).all()
    single = z.astype(F32)
    assert f(single).dtype == df(single).dtype == F32


@pytest.mark.parametrize(
    ("name", "z", "expected"),
    [
        ("relu", -2.0, 0.0),
        ("relu6", 7.5, 6.0),
        ("leaky_relu", -2.0, -0.4),
        ("elu", -1.0, math.exp(-1) - 1),
        ("selu", -math.log(2), -1.0507009873554805 * 1.6732632423543772 / 2),
        ("gelu", 1.0, 0.8413447460685429),  # Phi(1)
        ("gelu_tanh", 1.0, 0.8411919906082768),
        ("silu", math.log(3), 0.75 * math.log(3)),
        ("sigmoid", -math.log(3), 0.25),
        ("sigmoid", -700.0, math.exp(-700)),
        ("hard_sigmoid", 1.5, 0.75),
        ("hard_swish", -1.5, -0.375),
        ("tanh", math.log(2), 0.6),
        ("softplus", math.log(3), math.log(4)),
        ("softplus", -50.0, math.exp(-50)),
        ("mish", 0.0, 0.0),
        ("mish", math.log(math.e - 1), math.log(math.e - 1) * math.tanh(1)),
    ],
)
def test_activation_value(name: str, z: float, expected: float) -> None:
    assert_allclose(naive.ACTIVATIONS[name][0](np.array([z])), [expected], rtol=1e-14)


def test_kinks_take_the_flat_side() -> None:
    def slope(name: str, at: float) -> float:
        return float(naive.ACTIVATIONS[name][1](np.array([at]))[0])

    assert slope("relu", 0.0) == 0 and slope("leaky_relu", 0.0) == 0.2
    assert slope("relu6", 0.0) == slope("relu6", 6.0) == 0
    assert slope("hard_sigmoid", -3.0) == slope("hard_sigmoid", 3.0) == 0
    assert slope("hard_swish", -3.0) == 0 and slope("hard_swish", 3.0) == 1


def test_softmax() -> None:
    z, direction = rng().normal(size=(3, 5)), rng(1).normal(size=(3, 5))
    expected = naive.numerical_gradient(lambda v: np.sum(naive.softmax(v) * direction), z)
    assert_allclose(naive.softmax_vjp(z, direction), expected, atol=1e-9)
    assert_allclose(naive.softmax(np.log([[1.0, 2.0, 5.0]]) + 1e4), [[0.125, 0.25, 0.625]], rtol=1e-11)
    assert_allclose(naive.softmax(z), np.exp(naive.log_softmax(z)), rtol=1e-13)


# -- losses --


def loss_case(name: str, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Random outputs away from kinks and clips, with targets of the right kind."""
    r = rng(3)
    outputs: np.ndarray = r.normal(size=(4, n))
    targets: np.ndarray = r.normal(size=(4, n))
    if name in ("binary_crossentropy", "hinge", "binary_focal_crossentropy", "squared_hinge"):
        targets = r.integers(0, 2, (4, n)).astype(float)
    positive = ("mean_squared_logarithmic_error", "dice", "tversky", "binary_focal_crossentropy")
    if name in ("poisson", "kl_divergence", "binary_crossentropy", *positive):
        outputs = r.uniform(0.05, 0.95, (4, n))
    if name in ("poisson", "kl_divergence", "dice", "tversky"):
        targets = r.uniform(0.05, 0.95, (4, n))
    if "categorical" in name:
        outputs, targets = r.uniform(0.05, 0.95, (4, n)), naive.softmax(r.normal(size=(4, n)))
    if name.startswith("sparse"):
        targets = r.integers(0, n, 4)
    return outputs, targets


LOSS_OPTIONS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in naive.LOSSES] + [
    ("huber", {"delta": 0.3}),
    ("quantile", {"quantile": 0.9}),
    ("binary_crossentropy", {"from_logits": True}),
    ("binary_crossentropy", {"from_logits": True, "label_smoothing": 0.2}),
    ("binary_crossentropy", {"label_smoothing": 0.2}),
    ("categorical_crossentropy", {"from_logits": True}),
    ("categorical_crossentropy", {"from_logits": True, "label_smoothing": 0.1}),
    ("categorical_crossentropy", {"label_smoothing": 0.1}),
    ("sparse_categorical_crossentropy", {"from_logits": True}),
    ("binary_focal_crossentropy", {"from_logits": True, "label_smoothing": 0.2, "gamma": 1.5}),
    ("binary_focal_crossentropy", {"apply_class_balancing": True, "alpha": 0.3}),
    ("categorical_focal_crossentropy", {"from_logits": True, "label_smoothing": 0.2, "gamma": 1.5}),
    ("categorical_generalized_cross_entropy", {"q": 0.8}),
    ("tversky", {"alpha": 0.3, "beta": 0.6}),
]


@pytest.mark.parametrize(("name", "options"), LOSS_OPTIONS)
def test_loss_gradient(name: str, options: dict[str, Any]) -> None:
    outputs, targets = loss_case(name)
    loss, gradient = naive.LOSSES[name], naive.LOSS_GRADIENTS[name]
    rows = loss(outputs, targets, **options)
    assert rows.shape == (4,)
    expected = naive.numerical_gradient(lambda o: loss(o, targets, **options).sum(), outputs)
    assert_allclose(gradient(outputs, targets, **options), expected, rtol=1e-6, atol=1e-8)
    single = outputs.astype(F32)
    other = targets if name.startswith("sparse") else targets.astype(F32)
    assert loss(single, other, **options).dtype == gradient(single, other, **options).dtype == F32


def test_every_loss_has_a_gradient() -> None:
    assert naive.LOSSES.keys() == naive.LOSS_GRADIENTS.keys() and len(naive.LOSSES) == 21


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "options", "expected"),
    [
        ("mean_squared_error", [1, 2], [0, 4], {}, 2.5),
        ("mean_absolute_error", [1, 2], [0, 4], {}, 1.5),
        ("huber", [0.5, 3], [0, 0], {}, (0.125 + 2.5) / 2),
        ("log_cosh", [1, 1], [0, 1], {}, math.log(math.cosh(1)) / 2),
        ("log_cosh", [0, 0], [1000, -1000], {}, 1000 - math.log(2)),
        ("quantile", [0, 0], [2, -2], {"quantile": 0.9}, (1.8 + 0.2) / 2),
        ("poisson", [1, 2], [3, 0], {}, (1 - 3 * math.log(1 + 1e-7) + 2) / 2),
        ("binary_crossentropy", [0.25, 0.5], [1, 0], {}, (math.log(4) + math.log(2)) / 2),
        ("binary_crossentropy", [0, 1], [1, 1], {}, -(math.log(1e-7) + math.log(1 - 1e-7)) / 2),
        ("binary_crossentropy", [-1000, 1000], [1, 1], {"from_logits": True}, 500),
        ("binary_crossentropy", [0.25], [1], {"label_smoothing": 0.5},
         0.75 * math.log(4) + 0.25 * math.log(4 / 3)),
        ("categorical_crossentropy", [0.5, 1.5], [1, 0], {}, math.log(4)),
        ("categorical_crossentropy", [0, 1], [1, 0], {}, -math.log(1e-7)),
        ("categorical_crossentropy", [-1000, 1000], [1, 0], {"from_logits": True}, 2000),
        ("sparse_categorical_crossentropy", [0, math.log(3)], 1, {"from_logits": True}, math.log(4 / 3)),
        ("hinge", [0.5, 0.5, -3], [0, 1, 0], {}, (1.5 + 0.5) / 3),
        ("hinge", [0.5, 0.5, -3], [-1, 1, -1], {}, (1.5 + 0.5) / 3),
        ("kl_divergence", [0.25, 0.75], [0.5, 0.5], {}, 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
    ],
)  # fmt: skip
def test_loss_value(name: str, outputs: Any, targets: Any, options: Any, expected: float) -> None:
    row, target = np.array([outputs], float), np.array([targets], float)
    assert_allclose(naive.LOSSES[name](row, target, **options), [expected], rtol=1e-12)


# -- networks --


@pytest.mark.parametrize(
    ("last", "loss", "n_out"),
    [
        ("linear", "mean_squared_error", 3),
        ("softmax", "mean_squared_error", 3),
        ("softmax", "categorical_crossentropy", 4),
        ("softmax", "sparse_categorical_crossentropy", 4),
        ("linear", "sparse_categorical_crossentropy", 4),
        ("sigmoid", "binary_crossentropy", 2),
        ("softplus", "poisson", 1),
        ("softmax", "kl_divergence", 3),
    ],
)
def test_backpropagation(last: str, loss: str, n_out: int) -> None:
    layers = naive.draw_layers(rng(5), (3, 5, 2, n_out), ["gelu", "tanh", last])
    layers[1] = (layers[1][0], None, "tanh")
    x, weight = rng(6).normal(size=(4, 3)), rng(7).uniform(0.5, 2, 4)
    y = loss_case(loss, n_out)[1]
    options = {"from_logits": True} if last == "linear" and "categorical" in loss else {}
    value, gradients, input_gradient = naive.mlp_loss_and_gradients(x, y, layers, loss, sample_weight=weight, **options)

    def loss_of(inputs: np.ndarray, changed: list[naive.Layer]) -> float:
        return float(np.mean(weight * naive.LOSSES[loss](naive.mlp_forward(inputs, changed), y, **options)))

    assert_allclose(value, loss_of(x, layers), rtol=1e-12)
    assert_allclose(input_gradient, naive.numerical_gradient(lambda v: loss_of(v, layers), x), rtol=1e-6, atol=1e-8)
    for i, (kernel, bias, activation) in enumerate(layers):

        def with_layer(k: np.ndarray, b: Any, i: int = i, activation: str = activation) -> float:
            return loss_of(x, [*layers[:i], (k, b, activation), *layers[i + 1 :]])

        expected = naive.numerical_gradient(lambda k, b=bias, f=with_layer: f(k, b), kernel)  # type: ignore[misc]
        assert_allclose(gradients[i][0], expected, rtol=1e-6, atol=1e-8)
        bias_gradient = gradients[i][1]
        if bias is None or bias_gradient is None:
            assert bias is bias_gradient is None
            continue
        expected = naive.numerical_gradient(lambda b, k=kernel, f=with_layer: f(k, b), bias)  # type: ignore[misc]
        assert_allclose(bias_gradient, expected, rtol=1e-6, atol=1e-8)


def test_fused_losses_are_true_and_stable() -> None:
    x = np.array([[1.0]])
    layers: list[naive.Layer] = [(np.array([[-1000.0, 1000.0]]), np.zeros(2), "softmax")]
    value, gradients, _ = naive.mlp_loss_and_gradients(x, np.array([0]), layers, "sparse_categorical_crossentropy")
    assert value == 2000
    assert_array_equal(gradients[0][0], [[-1.0, 1.0]])
    layers = [(np.array([[-1000.0]]), None, "sigmoid")]
    value, gradients, _ = naive.mlp_loss_and_gradients(x, np.array([[1.0]]), layers, "binary_crossentropy")
    assert value == 1000
    assert_array_equal(gradients[0][0], [[-1.0]])


def test_forward_by_hand() -> None:
    layers: list[naive.Layer] = [
        (np.array([[1.0, -1.0], [2.0, 0.0]]), np.array([0.5, 0.0]), "relu"),
        (np.array([[2.0], [7.0]]), None, "linear"),
    ]
    assert_array_equal(naive.mlp_forward(np.array([[1.0, 1.0], [-1.0, 0.0]]), layers), [[7.0], [7.0]])


# -- normalisation --


@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
def test_normalisation(kind: str) -> None:
    r = rng(8)
    x, direction = r.normal(2, 3, (5, 4)), r.normal(size=(5, 4))
    gamma, beta = r.normal(size=4), r.normal(size=4)
    arguments = [x, gamma] if kind == "rms" else [x, gamma, beta]

    def forward(*arguments: np.ndarray) -> np.ndarray:
        made = getattr(naive, f"{kind}_norm")(*arguments)
        return made[0] if kind == "batch" else made

    for i, gradient in enumerate(getattr(naive, f"{kind}_norm_backward")(direction, x, gamma)):

        def value(v: np.ndarray, i: int = i) -> float:
            return float(np.sum(direction * forward(*(v if j == i else a for j, a in enumerate(arguments)))))

        assert_allclose(gradient, naive.numerical_gradient(value, arguments[i]), rtol=1e-6, atol=1e-8)


def test_normalisation_by_hand() -> None:
    x = np.array([[1.0, 4.0], [3.0, 4.0]])
    y, mean, variance = naive.batch_norm(x, np.array([2.0, 1.0]), np.array([0.0, 5.0]), epsilon=3.0)
    assert_array_equal(mean, [2.0, 4.0])
    assert_array_equal(variance, [1.0, 0.0])  # biased
    assert_array_equal(y, [[-1.0, 5.0], [1.0, 5.0]])
    assert_allclose(naive.moving_average(np.zeros(2), mean), [0.02, 0.04])
    assert_array_equal(naive.layer_norm(np.array([[1.0, 3.0]]), np.array([2.0, 4.0]), np.ones(2), 3.0), [[0.0, 3.0]])
    assert_array_equal(naive.rms_norm(np.array([[1.0, 7.0]]), np.array([12.0, 6.0]), 11.0), [[2.0, 7.0]])


# -- optimizers --


def test_adam_two_steps_by_hand() -> None:
    """Gradients 3 then -1 at learning rate 0.1, epsilon 0: bias-corrected means by Kingma and Ba's algorithm 1."""
    state: dict[str, Any] = {}
    p = naive_optimizers.adam(np.array([1.0]), np.array([3.0]), state, learning_rate=0.1, epsilon=0.0)
    assert_allclose(p, [0.9], rtol=1e-13)  # m_hat = 3, v_hat = 9
    p = naive_optimizers.adam(p, np.array([-1.0]), state, learning_rate=0.1, epsilon=0.0)
    m_hat = (0.9 * 0.3 - 0.1) / 0.19  # 0.17 / 0.19
    v_hat = (0.999 * 0.009 + 0.001) / 0.001999  # 0.009991 / 0.001999
    assert_allclose(p, [0.9 - 0.1 * m_hat / math.sqrt(v_hat)], rtol=1e-13)
    assert_allclose(p, [0.85998], atol=5e-6)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [  # from 1, gradients 2 then 2
        ("sgd", {"learning_rate": 0.1}, 1 - 0.4),
        ("sgd", {"learning_rate": 0.1, "momentum": 0.5}, 1 - 0.2 - 0.3),
        ("sgd", {"learning_rate": 0.1, "momentum": 0.5, "nesterov": True}, 1 - 0.3 - 0.35),
        ("rmsprop", {"epsilon": 1.0}, 1 - 0.002 / math.sqrt(1.4) - 0.002 / math.sqrt(1.76)),
        ("rmsprop", {"epsilon": 1.0, "momentum": 0.5},
         1 - 1.5 * 0.002 / math.sqrt(1.4) - 0.002 / math.sqrt(1.76)),
        ("rmsprop", {"epsilon": 1.0, "centered": True},
         1 - 0.002 / math.sqrt(1.4 - 0.04) - 0.002 / math.sqrt(1.76 - 0.1444)),
        ("adagrad", {}, 1 - 0.002 / math.sqrt(4.1 + 1e-7) - 0.002 / math.sqrt(8.1 + 1e-7)),
        ("adam", {"epsilon": 0.0}, 1 - 0.002),
        ("adam", {"epsilon": 0.0, "amsgrad": True}, 1 - 0.002),
        ("adamw", {"epsilon": 0.0}, (1 * (1 - 4e-6) - 0.001) * (1 - 4e-6) - 0.001),
        ("lion", {}, 1 - 0.002),
    ],
)  # fmt: skip
def test_optimizer_two_steps_by_hand(name: str, options: dict[str, Any], expected: float) -> None:
    state: dict[str, Any] = {}
    p = np.array([1.0, 1.0])
    for _ in range(2):
        p = naive_optimizers.OPTIMIZERS[name](p, np.array([2.0, 2.0]), state, **options)
    assert_allclose(p, [expected, expected], rtol=1e-13)
    assert state["t"] == 2


def test_optimizers_keep_what_they_are_handed() -> None:
    p, g = np.array([1.0, -2.0]), np.array([0.5, 0.0])
    for step in naive_optimizers.OPTIMIZERS.values():
        step(p, g, {})
        assert_array_equal(p, [1.0, -2.0])
        assert_array_equal(g, [0.5, 0.0])


def test_nadam_first_step_by_hand() -> None:
    p = naive_optimizers.nadam(np.array([1.0]), np.array([2.0]), {}, epsilon=0.0)
    mu_1, mu_2 = 0.9 * (1 - 0.48), 0.9 * (1 - 0.4608)
    m_hat = mu_2 * 0.2 / (1 - mu_1 * mu_2) + (1 - mu_1) * 2 / (1 - mu_1)
    assert_allclose(p, [1 - 0.001 * m_hat / 2], rtol=1e-13)


def test_lion_and_amsgrad_remember() -> None:
    state: dict[str, Any] = {}
    p = naive_optimizers.lion(np.array([0.0]), np.array([1.0]), state)
    p = naive_optimizers.lion(p, np.array([-0.05]), state)  # 0.9 * 0.01 - 0.1 * 0.05 > 0
    assert_allclose(p, [-0.002])
    state = {}
    p = naive_optimizers.adam(np.array([0.0]), np.array([10.0]), state, amsgrad=True)
    naive_optimizers.adam(p, np.array([0.0]), state, amsgrad=True)
    assert_allclose(state["velocity_hat"], [0.1])
    assert_allclose(state["velocity"], [0.0999])


def test_clipping_decay_and_averaging() -> None:
    g = np.array([3.0, -4.0])
    assert_array_equal(naive_optimizers.clip_by_value(g, 3.5), [3.0, -3.5])
    assert_allclose(naive_optimizers.clip_by_norm(g, 1.0), [0.6, -0.8])
    assert_array_equal(naive_optimizers.clip_by_norm(g, 10.0), g)
    assert_array_equal(naive_optimizers.clip_by_norm(0 * g, 1.0), 0 * g)
    first, second = naive_optimizers.clip_by_global_norm([g, np.array([12.0])], 6.5)
    assert_allclose(first, [1.5, -2.0])
    assert_allclose(second, [6.0])
    assert_allclose(naive_optimizers.decay_weights(g, 0.1, 0.5), 0.95 * g)
    state: dict[str, Any] = {}
    naive_optimizers.exponential_moving_average(g, state, 0.75)
    assert_array_equal(naive_optimizers.exponential_moving_average(0 * g, state, 0.75), 0.75 * g)


# -- pruning and shapes --


def test_magnitude_masks() -> None:
    w = np.array([[3.0, -1.0, 1.0], [0.0, -1.0, 2.0]])
    assert_array_equal(naive.magnitude_mask(w, 0.5), [[True, True, False], [False, False, True]])
    assert naive.magnitude_mask(w, 0.0).all() and not naive.magnitude_mask(w, 1.0).any()
    big, small = np.array([[5.0, 4.0]]), np.array([[1.0, 2.0]])
    globally = naive.magnitude_masks([big, small], 0.5)
    assert_array_equal(np.concatenate(globally), [[True, True], [False, False]])
    by_layer = naive.magnitude_masks([big, small], 0.5, scope="layer")
    assert_array_equal(np.concatenate(by_layer), [[True, False], [False, True]])


def test_drawn_shapes() -> None:
    assert {1, 2, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 32, 33, 37} <= set(naive.ODD_SIZES)
    shapes = naive.draw_shapes(rng(), 20)
    assert shapes[0] == (1, 1, 1) and len(shapes) == 20 and naive.draw_shapes(rng(), 20) == shapes
    layers = naive.draw_layers(rng(), (3, 1, 7), ["relu", "linear"])
    assert [k.shape for k, _, _ in layers] == [(3, 1), (1, 7)]
