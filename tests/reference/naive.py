"""The slow, obvious reference that every kernel is compared with: textbook NumPy, nothing of nbdense.

Everything computes in the dtype it is handed (float64 unless a test hands float32 on purpose). Rows are
samples. Losses that a model compiles on demand are in naive_losses.py, optimizers in naive_optimizers.py, integer
arithmetic is in naive_integer.py.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference import naive_activations, naive_losses

Array = np.ndarray
Layer = tuple[Array, Array | None, str]  # kernel (n_in, n_out), bias (n_out,) or None, name of the activation
State = dict[str, Any]

EPSILON = 1e-7  # keras.config.epsilon()
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
GELU_C = math.sqrt(2 / math.pi)


# -- activations: f(z) and df/dz. At a kink the derivative is the flat side's (relu'(0) = 0), as in torch. --


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[float])(x).astype(x.dtype)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def softplus(x: Array) -> Array:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def relu6(x: Array) -> Array:
    return np.clip(x, 0.0, 6.0)


def leaky_relu(x: Array, slope: float = 0.2) -> Array:
    return np.where(x > 0, x, slope * x)


def leaky_relu_derivative(x: Array, slope: float = 0.2) -> Array:
    return np.where(x > 0, 1.0, slope).astype(x.dtype)


def elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def elu_derivative(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0)))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2)))


def gelu_derivative(x: Array) -> Array:
    """Phi(x) + x phi(x), of the standard normal distribution."""
    return 0.5 * (1.0 + erf(x / math.sqrt(2))) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def gelu_tanh(x: Array) -> Array:
    """Hendrycks and Gimpel 2016 (arXiv:1606.08415), section 2."""
    return 0.5 * x * (1.0 + np.tanh(GELU_C * (x + 0.044715 * x**3)))


def gelu_tanh_derivative(x: Array) -> Array:
    t = np.tanh(GELU_C * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * GELU_C * (1.0 + 3 * 0.044715 * x * x)


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def silu_derivative(x: Array) -> Array:
    return sigmoid(x) + x * sigmoid(x) * sigmoid(-x)


def hard_sigmoid(x: Array) -> Array:
    return relu6(x + 3.0) / 6.0


def hard_sigmoid_derivative(x: Array) -> Array:
    return np.where((x > -3) & (x < 3), 1.0 / 6.0, 0.0).astype(x.dtype)


def hard_swish(x: Array) -> Array:
    return x * hard_sigmoid(x)


def hard_swish_derivative(x: Array) -> Array:
    return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3.0 + 0.5))


def mish(x: Array) -> Array:
    """Misra 2019 (arXiv:1908.08681)."""
    return x * np.tanh(softplus(x))


def mish_derivative(x: Array) -> Array:
    t = np.tanh(softplus(x))
    return t + x * (1.0 - t * t) * sigmoid(x)


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "linear": (lambda x: x, np.ones_like),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(x.dtype)),
    "relu6": (relu6, lambda x: ((x > 0) & (x < 6)).astype(x.dtype)),
    "leaky_relu": (leaky_relu, leaky_relu_derivative),
    "elu": (elu, elu_derivative),
    "selu": (lambda x: SELU_SCALE * elu(x, SELU_ALPHA), lambda x: SELU_SCALE * elu_derivative(x, SELU_ALPHA)),
    "gelu": (gelu, gelu_derivative),
    "gelu_tanh": (gelu_tanh, gelu_tanh_derivative),
    "silu": (silu, silu_derivative),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "hard_sigmoid": (hard_sigmoid, hard_sigmoid_derivative),
    "hard_swish": (hard_swish, hard_swish_derivative),
    "tanh": (np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "softplus": (softplus, sigmoid),
    "mish": (mish, mish_derivative),
    **naive_activations.ACTIVATIONS,
}


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_vjp(z: Array, grad: Array) -> Array:
    """Gradient with respect to the logits z, given that with respect to softmax(z)."""
    p = softmax(z)
    return p * (grad - (grad * p).sum(axis=-1, keepdims=True))


# Of whole rows: the function, and its gradient.
ROWWISE: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "softmax": (softmax, softmax_vjp),
    "log_softmax": (naive_activations.log_softmax, naive_activations.log_softmax_vjp),
}


def log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


# -- losses: (outputs, targets) -> one loss a row, as Keras 3 defines them (keras/src/losses/losses.py), and
# the gradient of each row's loss with respect to outputs, 0 at a kink as np.sign is --


def mean_squared_error(outputs: Array, targets: Array) -> Array:
    return np.mean((outputs - targets) ** 2, axis=-1)


def mean_squared_error_gradient(outputs: Array, targets: Array) -> Array:
    return 2.0 * (outputs - targets) / outputs.shape[-1]


def mean_absolute_error(outputs: Array, targets: Array) -> Array:
    return np.mean(np.abs(outputs - targets), axis=-1)


def mean_absolute_error_gradient(outputs: Array, targets: Array) -> Array:
    return np.sign(outputs - targets) / outputs.shape[-1]


def huber(outputs: Array, targets: Array, delta: float = 1.0) -> Array:
    a = np.abs(outputs - targets)
    return np.mean(np.where(a <= delta, 0.5 * a * a, delta * a - 0.5 * delta * delta), axis=-1)


def huber_gradient(outputs: Array, targets: Array, delta: float = 1.0) -> Array:
    return np.clip(outputs - targets, -delta, delta) / outputs.shape[-1]


def log_cosh(outputs: Array, targets: Array) -> Array:
    a = np.abs(outputs - targets)
    return np.mean(a + np.log1p(np.exp(-2.0 * a)) - math.log(2), axis=-1)


def log_cosh_gradient(outputs: Array, targets: Array) -> Array:
    return np.tanh(outputs - targets) / outputs.shape[-1]


def quantile(outputs: Array, targets: Array, quantile: float = 0.5) -> Array:
    """Pinball: with e = target - output, quantile * e where e > 0 and (1 - quantile) * -e where e < 0."""
    e = targets - outputs
    return np.mean(np.maximum(quantile * e, (quantile - 1.0) * e), axis=-1)


def quantile_gradient(outputs: Array, targets: Array, quantile: float = 0.5) -> Array:
    e = targets - outputs
    grad = np.where(e > 0, -quantile, np.where(e < 0, 1.0 - quantile, 0.0)).astype(e.dtype)
    return grad / outputs.shape[-1]


def poisson(outputs: Array, targets: Array) -> Array:
    return np.mean(outputs - targets * np.log(outputs + EPSILON), axis=-1)


def poisson_gradient(outputs: Array, targets: Array) -> Array:
    return (1.0 - targets / (outputs + EPSILON)) / outputs.shape[-1]


def _inside(p: Array, high: float) -> Array:
    """1 where clipping p to [EPSILON, high] changes nothing, else 0: what the clip does to a gradient."""
    return ((p >= EPSILON) & (p <= high)).astype(p.dtype)


def binary_crossentropy(
    outputs: Array, targets: Array, from_logits: bool = False, label_smoothing: float = 0.0
) -> Array:
    t = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return np.mean(softplus(outputs) - t * outputs, axis=-1)
    p = np.clip(outputs, EPSILON, 1.0 - EPSILON)
    return np.mean(-t * np.log(p) - (1.0 - t) * np.log(1.0 - p), axis=-1)


def binary_crossentropy_gradient(
    outputs: Array, targets: Array, from_logits: bool = False, label_smoothing: float = 0.0
) -> Array:
    t = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return (sigmoid(outputs) - t) / outputs.shape[-1]
    p = np.clip(outputs, EPSILON, 1.0 - EPSILON)
    return _inside(outputs, 1.0 - EPSILON) * (p - t) / (p * (1.0 - p)) / outputs.shape[-1]


def categorical_crossentropy(
    outputs: Array, targets: Array, from_logits: bool = False, label_smoothing: float = 0.0
) -> Array:
    """Probabilities are divided by their sum, then clipped, as Keras does; from logits nothing is clipped."""
    t = targets * (1.0 - label_smoothing) + label_smoothing / outputs.shape[-1]
    if from_logits:
        return -np.sum(t * log_softmax(outputs), axis=-1)
    p = outputs / outputs.sum(axis=-1, keepdims=True)
    return -np.sum(t * np.log(np.clip(p, EPSILON, 1.0 - EPSILON)), axis=-1)


def categorical_crossentropy_gradient(
    outputs: Array, targets: Array, from_logits: bool = False, label_smoothing: float = 0.0
) -> Array:
    t = targets * (1.0 - label_smoothing) + label_smoothing / outputs.shape[-1]
    if from_logits:
        return softmax(outputs) * t.sum(axis=-1, keepdims=True) - t
    total = outputs.sum(axis=-1, keepdims=True)
    p = outputs / total
    grad = -t / np.clip(p, EPSILON, 1.0 - EPSILON) * _inside(p, 1.0 - EPSILON)  # with respect to p
    return (grad - (grad * p).sum(axis=-1, keepdims=True)) / total


def one_hot(labels: Array, n_classes: int) -> Array:
    return np.eye(n_classes)[np.asarray(labels).reshape(-1).astype(np.int64)]


def sparse_categorical_crossentropy(outputs: Array, targets: Array, from_logits: bool = False) -> Array:
    t = one_hot(targets, outputs.shape[-1]).astype(outputs.dtype)
    return categorical_crossentropy(outputs, t, from_logits=from_logits)


def sparse_categorical_crossentropy_gradient(outputs: Array, targets: Array, from_logits: bool = False) -> Array:
    t = one_hot(targets, outputs.shape[-1]).astype(outputs.dtype)
    return categorical_crossentropy_gradient(outputs, t, from_logits=from_logits)


def hinge_targets(targets: Array) -> Array:
    """Labels that are all 0 or 1 become -1 and 1; others stay as they are."""
    return 2.0 * targets - 1.0 if np.isin(targets, (0, 1)).all() else targets


def hinge(outputs: Array, targets: Array) -> Array:
    return np.mean(np.maximum(1.0 - hinge_targets(targets) * outputs, 0.0), axis=-1)


def hinge_gradient(outputs: Array, targets: Array) -> Array:
    t = hinge_targets(targets)
    return np.where(1.0 - t * outputs > 0, -t, 0.0) / outputs.shape[-1]


def kl_divergence(outputs: Array, targets: Array) -> Array:
    t, p = np.clip(targets, EPSILON, 1.0), np.clip(outputs, EPSILON, 1.0)
    return np.sum(t * np.log(t / p), axis=-1)


def kl_divergence_gradient(outputs: Array, targets: Array) -> Array:
    t, p = np.clip(targets, EPSILON, 1.0), np.clip(outputs, EPSILON, 1.0)
    return -t / p * _inside(outputs, 1.0)


_LOSS_ROWS: list[tuple[Callable[..., Array], Callable[..., Array]]] = [
    (mean_squared_error, mean_squared_error_gradient),
    (mean_absolute_error, mean_absolute_error_gradient),
    (huber, huber_gradient),
    (log_cosh, log_cosh_gradient),
    (quantile, quantile_gradient),
    (poisson, poisson_gradient),
    (binary_crossentropy, binary_crossentropy_gradient),
    (categorical_crossentropy, categorical_crossentropy_gradient),
    (sparse_categorical_crossentropy, sparse_categorical_crossentropy_gradient),
    (hinge, hinge_gradient),
    (kl_divergence, kl_divergence_gradient),
    *naive_losses.ROWS,
]
LOSSES: dict[str, Callable[..., Array]] = {f.__name__: f for f, _ in _LOSS_ROWS}
LOSS_GRADIENTS: dict[str, Callable[..., Array]] = {f.__name__: df for f, df in _LOSS_ROWS}
FUSED = {
    "softmax": ("categorical_crossentropy", "sparse_categorical_crossentropy"),
    "sigmoid": ("binary_crossentropy",),
}


def numerical_gradient(f: Callable[[Array], Any], x: Array, eps: float = 1e-5) -> Array:
    """Central differences of the scalar f(x) in float64; x is left as it was."""
    x = np.array(x, dtype=np.float64)
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + eps
        above = float(f(x))
        x[i] = kept - eps
        below = float(f(x))
        x[i] = kept
        grad[i] = (above - below) / (2 * eps)
    return grad


# -- networks of Dense layers --


def dense(x: Array, kernel: Array, bias: Array | None) -> Array:
    return x @ kernel if bias is None else x @ kernel + bias


def activate(name: str, z: Array) -> Array:
    return ROWWISE[name][0](z) if name in ROWWISE else ACTIVATIONS[name][0](z)


def activate_vjp(name: str, z: Array, grad: Array) -> Array:
    """Gradient with respect to the pre-activation z, given that with respect to activate(name, z)."""
    return ROWWISE[name][1](z, grad) if name in ROWWISE else grad * ACTIVATIONS[name][1](z)


def mlp_forward(x: Array, layers: list[Layer]) -> Array:
    for kernel, bias, activation in layers:
        x = activate(activation, dense(x, kernel, bias))
    return x


def mlp_loss_and_gradients(
    x: Array, y: Array, layers: list[Layer], loss: str, *, sample_weight: Array | None = None, **options: Any
) -> tuple[float, list[tuple[Array, Array | None]], Array]:
    """(loss, [(kernel gradient, bias gradient or None)], input gradient).

    The loss is the weighted sum over rows divided by the number of rows. A cross-entropy on softmax or
    sigmoid is computed from the logits: the true loss, never clipped.
    """
    inputs, zs = [], []
    for kernel, bias, activation in layers:
        inputs.append(x)
        zs.append(dense(x, kernel, bias))
        x = activate(activation, zs[-1])
    fused = loss in FUSED.get(layers[-1][2], ())
    if fused:
        x, options = zs[-1], {**options, "from_logits": True}
    weight = np.full(len(x), 1.0, x.dtype) if sample_weight is None else np.asarray(sample_weight, x.dtype)
    value = float(np.sum(weight * LOSSES[loss](x, y, **options)) / len(x))
    grad = weight[:, None] / len(x) * LOSS_GRADIENTS[loss](x, y, **options)
    gradients: list[tuple[Array, Array | None]] = []
    for i in reversed(range(len(layers))):
        kernel, bias, activation = layers[i]
        if not (fused and i == len(layers) - 1):
            grad = activate_vjp(activation, zs[i], grad)
        gradients.insert(0, (inputs[i].T @ grad, None if bias is None else grad.sum(axis=0)))
        grad = grad @ kernel.T
    return value, gradients, grad


# -- normalisation: Keras's BatchNormalization (biased variance) and LayerNormalization over the last axis --


def batch_norm(x: Array, gamma: Array, beta: Array, epsilon: float = 1e-3) -> tuple[Array, Array, Array]:
    """Training mode: (output, mean, biased variance)."""
    mean, variance = x.mean(axis=0), x.var(axis=0)
    return batch_norm_inference(x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float = 1e-3
) -> Array:
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def moving_average(moving: Array, value: Array, momentum: float = 0.99) -> Array:
    return momentum * moving + (1.0 - momentum) * value


def _standardise_vjp(x: Array, grad: Array, axis: int, epsilon: float) -> tuple[Array, Array]:
    """((x - mean) / sqrt(variance + epsilon), gradient with respect to x), statistics over axis.

    Ioffe and Szegedy 2015 (arXiv:1502.03167), section 3, simplified.
    """
    deviation = np.sqrt(x.var(axis=axis, keepdims=True) + epsilon)
    x_hat = (x - x.mean(axis=axis, keepdims=True)) / deviation
    mean_grad = grad.mean(axis=axis, keepdims=True)
    mean_product = (grad * x_hat).mean(axis=axis, keepdims=True)
    return x_hat, (grad - mean_grad - x_hat * mean_product) / deviation


def batch_norm_backward(grad: Array, x: Array, gamma: Array, epsilon: float = 1e-3) -> tuple[Array, Array, Array]:
    """(input gradient, gamma gradient, beta gradient) in training mode."""
    x_hat, dx = _standardise_vjp(x, grad * gamma, 0, epsilon)
    return dx, (grad * x_hat).sum(axis=0), grad.sum(axis=0)


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float = 1e-3) -> Array:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def layer_norm_backward(grad: Array, x: Array, gamma: Array, epsilon: float = 1e-3) -> tuple[Array, Array, Array]:
    x_hat, dx = _standardise_vjp(x, grad * gamma, -1, epsilon)
    return dx, (grad * x_hat).sum(axis=0), grad.sum(axis=0)


def rms_norm(x: Array, scale: Array, epsilon: float = 1e-6) -> Array:
    return scale * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)


def rms_norm_backward(grad: Array, x: Array, scale: Array, epsilon: float = 1e-6) -> tuple[Array, Array]:
    """(input gradient, scale gradient): of y_i = s_i x_i r, r = (mean(x^2) + epsilon)^-1/2, dr/dx_j = -r^3 x_j / n."""
    r = ((x**2).mean(axis=-1, keepdims=True) + epsilon) ** -0.5
    pull = (grad * scale * x).mean(axis=-1, keepdims=True)
    return grad * scale * r - x * r**3 * pull, (grad * x * r).sum(axis=0)


# -- pruning, shapes --


def magnitude_mask(weights: Array, sparsity: float) -> Array:
    """True where kept: all but the round(sparsity * size) smallest |w|; of equals the first are kept."""
    size = weights.size
    order = np.argsort(-np.abs(weights.ravel()), kind="stable")
    mask = np.zeros(size, dtype=bool)
    mask[order[: size - round(sparsity * size)]] = True
    return mask.reshape(weights.shape)


def magnitude_masks(kernels: list[Array], sparsity: float, scope: str = "global") -> list[Array]:
    """One mask a kernel; "global" ranks all kernels together in the order given, "layer" each by itself."""
    if scope == "layer":
        return [magnitude_mask(k, sparsity) for k in kernels]
    flat = magnitude_mask(np.concatenate([k.ravel() for k in kernels]), sparsity)
    ends = np.cumsum([k.size for k in kernels])[:-1]
    return [m.reshape(k.shape) for m, k in zip(np.split(flat, ends), kernels, strict=True)]


TILES = (8, 12, 16, 32)
ODD_SIZES = (1, 2, 3, 5, 13, 37, *sorted({t + d for t in TILES for d in (-1, 0, 1)}))


def draw_shape(rng: np.random.Generator, n_axes: int = 3) -> tuple[int, ...]:
    """Sizes worth trying, such as (batch, n_in, n_out): 1, primes, each tile's size and its neighbours."""
    return tuple(int(size) for size in rng.choice(ODD_SIZES, n_axes))


def draw_shapes(rng: np.random.Generator, count: int, n_axes: int = 3) -> list[tuple[int, ...]]:
    """All ones, then the tile's neighbours together, then drawn ones."""
    fixed = [(1,) * n_axes, (15,) * n_axes, (17,) * n_axes][:count]
    return fixed + [draw_shape(rng, n_axes) for _ in range(count - len(fixed))]


def draw_layers(rng: np.random.Generator, widths: list[int] | tuple[int, ...], activations: list[str]) -> list[Layer]:
    """A float64 network: normal weights of variance 1 / n_in, small biases; widths has one entry more."""
    return [
        (rng.normal(0, n_in**-0.5, (n_in, n_out)), rng.normal(0, 0.1, n_out), activation)
        for n_in, n_out, activation in zip(widths[:-1], widths[1:], activations, strict=True)
    ]
