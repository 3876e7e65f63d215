"""The one table of cases: what is checked, and then timed; and the targets that the figures are held against.

Everything here is data, drawn from fixed seeds: each worker process makes the same arrays for itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Weights = list[tuple[Floats, Floats]]  # kernel (n_in, n_out) and bias (n_out,) of each layer

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
TOLERANCE = 1e-4  # between a library's losses and predictions and the reference's
INT8_TOLERANCE = 0.03  # between probabilities of a network in 8-bit integers and the reference's: twice what they cost
CALIBRATION_ROWS = 1024


@dataclass(frozen=True)
class Case:
    """A relu network with a softmax, trained with Adam on batches of shuffled rows.

    ``steps`` is the length of an epoch; ``predict`` the batch sizes at which inference is timed too.
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    steps: int
    predict: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        return self.batch * self.steps

    @property
    def shape(self) -> str:
        return "-".join(map(str, self.widths))

    @property
    def step_operations(self) -> int:
        """Floating-point operations of a step's products: the first layer's input needs no gradient."""
        first, *others = (n_in * n_out for n_in, n_out in zip(self.widths, self.widths[1:], strict=False))
        return 2 * self.batch * (2 * first + 3 * sum(others))


CASES = {
    case.name: case
    for case in (
        Case("tab_s", (20, 64, 64, 2), 32, 400, (1, 32, 1024)),
        Case("tab_m", (54, 256, 128, 7), 256, 80),
        Case("mnist", (784, 128, 64, 10), 128, 100, (1, 32, 1024)),
        Case("wide", (784, 512, 512, 10), 256, 40, (1, 32, 1024)),
    )
}
SMALLEST = "tab_s"


@dataclass(frozen=True)
class Pattern:
    """Weights that are set to zero: of each kernel this share, the smallest, in blocks of inputs by outputs.

    With ``neurons``, it is of each hidden layer's neurons, and all that goes into them and comes out of them.
    """

    share: float
    block: tuple[int, int] = (1, 1)
    neurons: bool = False

    def masked(self, weights: Weights) -> Weights:
        """Return weights of which the blocks, or neurons, of the least sums of squares are zero."""
        if self.neurons:
            return self._without_neurons(weights)
        return [(self._masked(kernel), bias) for kernel, bias in weights]

    def _without_neurons(self, weights: Weights) -> Weights:
        made = [(kernel.copy(), bias.copy()) for kernel, bias in weights]
        for (kernel, bias), (following, _) in itertools.pairwise(made):
            least = np.argsort(np.square(kernel).sum(axis=0), kind="stable")[: round(self.share * bias.size)]
            kernel[:, least], bias[least], following[least] = 0, 0, 0
        return made

    def _masked(self, kernel: Floats) -> Floats:
        (n_in, n_out), (high, wide) = kernel.shape, self.block
        rows, columns = -(-n_in // high), -(-n_out // wide)
        padded = np.zeros((rows * high, columns * wide))
        padded[:n_in, :n_out] = kernel
        sizes = np.square(padded).reshape(rows, high, columns, wide).sum(axis=(1, 3)).ravel()
        kept = np.ones(sizes.size, np.float32)
        kept[np.argsort(sizes, kind="stable")[: round(self.share * sizes.size)]] = 0
        mask = np.repeat(np.repeat(kept.reshape(rows, columns), high, axis=0), wide, axis=1)
        return kernel * mask[:n_in, :n_out]


PATTERNS = {
    "80%": Pattern(0.8),
    "90%": Pattern(0.9),
    "95%": Pattern(0.95),
    "90% in blocks of 1x16": Pattern(0.9, (1, 16)),
    "90% in blocks of 4x16": Pattern(0.9, (4, 16)),
    "50% of the neurons": Pattern(0.5, neurons=True),
}
SPARSE_CASES, SPARSE_BATCHES = ("wide",), (1, 32, 1024)
# Loops of one's own, a call from Python for each batch: a small network, and the same online.
LOOPS = {case.name: case for case in (CASES["tab_s"], Case("online", (4, 64, 64, 2), 1, 400))}

# Time to accuracy: this case's shape, batch and optimizer, on the real data set.
ACCURACY_CASE, ACCURACY, ACCURACY_EPOCHS = "mnist", 0.975, 30


@dataclass(frozen=True)
class Target:
    """A bound on a figure of `benchmarks.report.figures`: the least that it may be, or the most."""

    figure: str
    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


# Times faster than each library, at 2 threads.
_TRAINING: dict[str, dict[str, float]] = {
    "tab_s": {"torch": 35, "jax": 3.5, "sklearn": 18},
    "tab_m": {"torch": 4, "jax": 3, "sklearn": 6},
    "mnist": {"torch": 4, "jax": 2.3, "sklearn": 6},
    "wide": {"torch": 1.5, "jax": 1.35, "sklearn": 3.5},
}
_INFERENCE: dict[int, dict[str, float]] = {
    1: {"tab_s": 3, "mnist": 1.5, "wide": 1},
    32: {"tab_s": 3, "mnist": 1.1, "wide": 1.1},
    1024: {"tab_s": 2, "mnist": 1.1, "wide": 1.02},
}
# Int8 inference, times faster than onnxruntime's int8 in its faster form.
_INT8: dict[int, dict[str, float]] = {
    1: {"tab_s": 2, "mnist": 1, "wide": 1},
    32: {"tab_s": 1, "mnist": 1, "wide": 1},
    1024: {"tab_s": 1, "mnist": 1.3, "wide": 1.3},
}
_SPARSE: dict[str, dict[int, float]] = {
    "80%": {1024: 1.3},
    "90%": {1: 2.5, 1024: 2.5},
    "95%": {1024: 4},
    "90% in blocks of 1x16": {1024: 4},
    "50% of the neurons": {1024: 2.1},
}
TARGETS = (
    *(
        Target(f"training/{case}/2 threads/times faster than {library}", bound)
        for case, bounds in _TRAINING.items()
        for library, bound in bounds.items()
    ),
    Target("training/wide/2 threads/share of the FMA limit", 0.75),
    *(
        Target(f"inference/{case}, batch {batch}/2 threads/times faster than onnxruntime", bound)
        for batch, bounds in _INFERENCE.items()
        for case, bound in bounds.items()
    ),
    *(
        Target(f"int8/{case}, batch {batch}/2 threads/times faster than onnxruntime", bound)
        for batch, bounds in _INT8.items()
        for case, bound in bounds.items()
    ),
    Target("int8/wide, batch 1024/2 threads/times faster than nbdense in float32", 2.5),
    # Without the weights that are zero: times faster than the faster of nbdense and onnxruntime with them.
    *(
        Target(f"sparse/wide, {pattern}, batch {batch}/2 threads/times faster than dense", bound)
        for pattern, bounds in _SPARSE.items()
        for batch, bound in bounds.items()
    ),
    *(
        Target(f"sparse/wide, 90% in blocks of 4x16, batch {batch}/2 threads/times faster than dense int8", 1.5)
        for batch in (1, 1024)
    ),
    # What is around a step from Python, beyond a step of fit.
    Target("loops/tab_s/1 thread/train_step beyond 1.05 steps of fit, empty njit calls", 2, at_most=True),
    Target("loops/tab_s/1 thread/train_on_batch beyond a step of fit, jitted JAX steps", 0.1, at_most=True),
    Target("loops/tab_s/1 thread/own_loop beyond a step of fit, jitted JAX steps", 0.25, at_most=True),
    Target("loops/tab_s/1 thread/predict of a row, njit calls with an array allocated", 4, at_most=True),
    Target("loops/online/1 thread/times faster than jax_loop", 5),
    Target("loops/online/1 thread/times faster than torch_loop", 20),
    Target("loops/online/1 thread/learn_one, times faster than jax_loop", 5),
    Target("loops/online/1 thread/learn_one, times faster than torch_loop", 20),
    *(Target(f"busy/{case}/times as long as with OMP_NUM_THREADS=1", 1.3, at_most=True) for case in CASES),
    Target("accuracy/nbdense", ACCURACY),
    Target("start/import nbdense, times import numba", 1.3, at_most=True),
    # Stricter: `import nbdense` is lazy, and does not even import numba.
    Target("start/import nbdense.models, times import numba", 1.3, at_most=True),
    Target("start/import, fit and predict with a warm cache, s", 1.5, at_most=True),
    Target("start/compile with a cold cache, s", 20, at_most=True),
)


def make_rows(widths: tuple[int, ...], rows: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Draw inputs (rows, n_in) and classes (rows,) that can be learned, though not perfectly."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, widths[0]), np.float32)
    scores = x @ rng.standard_normal((widths[0], widths[-1]), np.float32)
    noise = rng.standard_normal(scores.shape, np.float32) * np.float32(np.sqrt(widths[0]) / 2)
    return x, (scores + noise).argmax(axis=1)


def make_weights(widths: tuple[int, ...], seed: int = 0) -> Weights:
    """Draw Glorot-uniform kernels, and biases that are not zero, so that the checks see them."""
    rng = np.random.default_rng(seed + 1)
    weights = []
    for n_in, n_out in itertools.pairwise(widths):
        limit = np.sqrt(6.0 / (n_in + n_out))
        kernel = rng.uniform(-limit, limit, (n_in, n_out)).astype(np.float32)
        weights.append((kernel, rng.uniform(-0.05, 0.05, n_out).astype(np.float32)))
    return weights
