"""The base of `MLPClassifier` and `MLPRegressor`: scikit-learn's conventions, and training by a Sequential.

Names, defaults and meanings are those of scikit-learn's `sklearn.neural_network`: the loss of a batch is the mean over
its rows plus alpha / 2 times the squared weights over the batch's size, a fit stops when the loss (or the held-out
score) has stopped improving, and initial weights are uniform as there (Glorot and Bengio 2010). Random numbers are
nbdense's own: equal seeds give other weights than scikit-learn's.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._warn import warn
from nbdense.activations import ACTIVATIONS
from nbdense.estimators.progress import Floats, HeldOut, Progress
from nbdense.initializers import RandomUniform
from nbdense.layers import Dense, Input
from nbdense.losses import Loss
from nbdense.models import Sequential, load_model
from nbdense.optimizers import SGD, Adam, Optimizer
from nbdense.regularizers import L2
from nbdense.training.loop import LossNotFiniteError

try:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("nbdense.estimators needs scikit-learn, 1.6 or later: pip install 'nbdense[sklearn]'") from error

AUTO_BATCH = 200  # rows, of batch_size="auto"

# scikit-learn's names beside nbdense's own
ACTIVATION_NAMES = {"identity": "linear", "logistic": "sigmoid"} | {
    name: name for name, row in ACTIVATIONS.items() if not row.rowwise
}
OUT_ACTIVATION_NAMES = {"linear": "identity", "sigmoid": "logistic"}  # as scikit-learn calls them


def got(value: Any) -> str:
    """Write a parameter's value for an error; layers' sizes may have come first, as scikit-learn has them."""
    sizes = isinstance(value, tuple | list) and all(_is_whole(size) for size in value)
    return f"{_checks.plain(value)!r}" + ("; did you mean hidden_layer_sizes=?" if sizes else "")


def _is_real(value: Any) -> bool:
    return not isinstance(value, bool | np.bool_) and isinstance(value, Real) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool | np.bool_) and isinstance(value, Integral)


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: isinstance(value, str) and value in names), f"one of {', '.join(map(repr, names))}"


_SWITCH = (lambda value: isinstance(value, bool | np.bool_)), "True or False"
_SHARE = (lambda value: _is_real(value) and 0 <= value < 1), "a number in [0, 1)"
_NOT_NEGATIVE = (lambda value: _is_real(value) and value >= 0), "a finite number of at least 0"
_POSITIVE = (lambda value: _is_real(value) and value > 0), "a finite number above 0"
_COUNT = (lambda value: _is_whole(value) and value >= 1), "a whole number of at least 1"

_TAKEN: dict[str, Any] = {"dtype": "numeric", "accept_sparse": ("csr", "csc", "coo")}  # what X may be

# Of each parameter: whether a value will do, and what would.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "activation": _one_of(*ACTIVATION_NAMES),
    "solver": _one_of("adam", "sgd"),
    "alpha": _NOT_NEGATIVE,
    "batch_size": ((lambda value: value == "auto" or _COUNT[0](value)), "'auto' or a whole number of at least 1"),
    "learning_rate": _one_of("constant", "invscaling", "adaptive"),
    "learning_rate_init": _POSITIVE,
    "power_t": _NOT_NEGATIVE,
    "max_iter": _COUNT,
    "shuffle": _SWITCH,
    "tol": _NOT_NEGATIVE,
    "verbose": ((lambda value: isinstance(value, bool | np.bool_) or _is_whole(value)), "True, False or a number"),
    "warm_start": _SWITCH,
    "momentum": _SHARE,
    "nesterovs_momentum": _SWITCH,
    "early_stopping": _SWITCH,
    "validation_fraction": _SHARE,
    "beta_1": _SHARE,
    "beta_2": _SHARE,
    "epsilon": _POSITIVE,
    "n_iter_no_change": ((lambda value: value == math.inf or _COUNT[0](value)), "a whole number of at least 1, or inf"),
    "dtype": _one_of("float32", "float64"),
}


class BaseMLP(BaseEstimator):
    """A multilayer perceptron behind scikit-learn's interface; see its two subclasses.

    A subclass says what its targets are (`_encode`), what it minimises (`_objective`), how it judges held-out rows
    (`_held_out_score`), and has the parameters in its ``__init__``.
    """

    _y_numeric = False

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Keep an ``__init__``'s arguments as they were given: scikit-learn looks them up under their names."""
        self.__dict__.update({name: value for name, value in parameters.items() if name not in ("self", "__class__")})

    def _encode(self, y: Any, fresh: bool) -> npt.NDArray[Any]:
        """Return checked targets as `Sequential.fit` takes them; where ``fresh``, learn their classes."""
        raise NotImplementedError

    def _objective(self) -> tuple[str | Loss, float, str, int]:
        """Return the loss, the factor that makes it scikit-learn's, the output's activation, and its units."""
        raise NotImplementedError

    def _held_out_score(self, outputs: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> float:
        """Return the score that early stopping looks at: larger is better."""
        raise NotImplementedError

    def _class_weights(self, targets: npt.NDArray[Any], weights: Floats | None) -> Floats | None:
        """Return the factor of each row's weight for its class; None if all weigh alike."""
        return None

    # -- fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse, (rows, columns)
            Numbers, finite; sparse ones are made dense.
        y : array-like, (rows,) or (rows, outputs)
            A classifier's labels, or 0 and 1 for each label; a regressor's numbers, finite.
        sample_weight : array-like, (rows,), optional
            A weight for each row; one of weight 2 counts as two rows.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool = False) -> Self:
        """Do the work of ``fit``, and one epoch of it for ``partial_fit``."""
        hidden = self._check_parameters()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True, which holds rows out of a whole fit")
        fresh = not hasattr(self, "model_") or not (self.warm_start or incremental)
        if fresh:
            self.__dict__.pop("model_", None)  # a fit that fails leaves nothing of the one before
        for name, value in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            _checks.refuse_masked(name, value)
        X, y = validate_data(self, X, y, reset=fresh, multi_output=True, y_numeric=self._y_numeric, **_TAKEN)
        X = _dense(X)
        targets = self._encode(y, fresh)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        by_class = self._class_weights(targets, weights)
        if by_class is not None:
            weights = by_class if weights is None else weights * by_class
        random = check_random_state(self.random_state)
        seed = int(random.randint(np.iinfo(np.int32).max))
        held_out = None
        if self.early_stopping:
            X, targets, weights, held_out = self._hold_out(X, targets, weights, random)
        model = self._new_model(X.shape[1], hidden, seed) if fresh else self._known_model(hidden)
        if fresh:
            self.loss_curve_: list[float] = []
            self.t_ = 0
        if fresh or (self.validation_scores_ is not None) != self.early_stopping:
            self.best_loss_ = None if self.early_stopping else math.inf
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.best_validation_score_ = -math.inf if self.early_stopping else None
        self._train(model, X, targets, weights, held_out, incremental, fresh)
        return self

    def _train(
        self,
        model: Sequential,
        X: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weights: Floats | None,
        held_out: HeldOut | None,
        incremental: bool,
        fresh: bool,
    ) -> None:
        loss, factor, _, _ = self._objective()
        batch = self._batch_size(len(X))
        of_row = 1.0 if weights is None else float(weights.mean())
        if not of_row > 0.0:
            raise ValueError("sample_weight: the weights do not sum to more than zero: there is nothing to learn")
        _set_penalty(model, 0.5 * self.alpha / (batch * of_row))  # a row of weight 2 counts as two rows
        if fresh or not incremental:
            model.compile(self._optimizer(), loss)
            self._no_improvement_count = 0
        if weights is not None or factor != 1.0:
            weights = np.full(len(X), factor) if weights is None else weights * (factor / of_row)
        progress = Progress(self, len(X), held_out)
        error = None
        try:
            if incremental and batch == len(X):
                self._step(model, X, targets, weights, progress)
            else:
                model.fit(
                    X,
                    targets,
                    batch_size=batch,
                    epochs=1 if incremental else int(self.max_iter),
                    verbose=0,
                    callbacks=[progress],
                    shuffle=bool(self.shuffle),
                    sample_weight=weights,
                )
        except KeyboardInterrupt:
            warn("Training interrupted by user.")
        except LossNotFiniteError as ended:
            error = ended
        complaint = ""
        if progress.settle(error, lambda: model.evaluate(X, targets, sample_weight=weights)):
            complaint = (
                f"The loss was no longer finite in iteration {self.n_iter_}: the weights are the last whose loss was. "
                "A smaller learning_rate_init may help, or X and y scaled."
            )
        elif not (progress.stopped or incremental) and self.n_iter_ == self.max_iter:
            complaint = f"Maximum iterations ({self.max_iter}) reached and the optimization hasn't converged yet."
        self.model_ = model
        if complaint:
            warn(f"Stochastic Optimizer: {complaint}", ConvergenceWarning)

    def _step(
        self,
        model: Sequential,
        X: npt.NDArray[Any],
        targets: npt.NDArray[Any],
        weights: Floats | None,
        progress: Progress,
    ) -> None:
        """Train for an epoch that is a single step."""
        progress.set_model(model)
        progress.on_train_begin()
        progress.on_epoch_begin(0)
        progress.on_epoch_end(0, {"loss": model.train_step(len(X))(X, targets, weights)})

    def learn_one(self, x: Any, y: Any) -> Self:
        """Take one step on one row as it comes in, without scikit-learn's checks; `partial_fit` comes first.

        Counted are ``t_`` and ``loss_``, the row's loss; ``loss_curve_`` does not grow.

        Parameters
        ----------
        x : array-like, (columns,)
            Numbers.
        y : label or number
            Its label or value; for several, an array of them.
        """
        check_is_fitted(self, "model_")
        _, factor, _, _ = self._objective()
        model = self.model_
        if model.network.segments[0]["l2"] != 0.5 * self.alpha:
            _set_penalty(model, 0.5 * self.alpha)
        self.loss_ = model.learn_one(x, self._encode_one(y), None if factor == 1.0 else factor)
        self.t_ += 1
        return self

    def predict_one(self, x: Any) -> Any:
        """Predict the label or value of one row, without scikit-learn's checks.

        Parameters
        ----------
        x : array-like, (columns,)
            Numbers.
        """
        check_is_fitted(self, "model_")
        return self._answers(self.model_.predict_one(x)[np.newaxis])[0]

    def _encode_one(self, y: Any) -> Any:
        """Return the target of one row as `Sequential.fit` takes it."""
        return y

    def _answers(self, outputs: Floats) -> npt.NDArray[Any]:
        """Return what is predicted by outputs of the network."""
        raise NotImplementedError

    def _check_parameters(self) -> list[int]:
        """Raise for the first parameter that will not do; returns the hidden layers' sizes."""
        for name, (suits, wanted) in RULES.items():
            value = getattr(self, name)
            if not suits(value):
                raise ValueError(f"{type(self).__name__}: {name} must be {wanted}, got {got(value)}")
        sizes = self.hidden_layer_sizes
        listed = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
        if not all(_COUNT[0](size) for size in listed):
            raise ValueError(
                f"{type(self).__name__}: hidden_layer_sizes must be whole numbers of at least 1, one for each hidden "
                f"layer (hidden_layer_sizes > 0), got {sizes!r}"
            )
        return [int(size) for size in listed]

    def _batch_size(self, rows: int) -> int:
        if isinstance(self.batch_size, str):
            return min(AUTO_BATCH, rows)
        if self.batch_size > rows:
            warn(f"batch_size={self.batch_size} is more than the {rows} rows there are; it is clipped to these")
        return min(int(self.batch_size), rows)

    def _hold_out(
        self, X: npt.NDArray[Any], targets: npt.NDArray[Any], weights: Floats | None, random: np.random.RandomState
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Floats | None, HeldOut]:
        """Return rows to learn from, their targets and weights, and those held out of them."""
        arrays = [X, targets] if weights is None else [X, targets, weights]
        share, stratify = self.validation_fraction, targets if targets.ndim == 1 else None  # by the rows' classes
        parts = train_test_split(*arrays, random_state=random, test_size=share, stratify=stratify)
        learnt, held_out = parts[::2], parts[1::2]
        if len(held_out[0]) < 2 or (weights is not None and not held_out[2].any()):
            raise ValueError(
                f"early_stopping: validation_fraction={share} of {len(X)} rows holds out too few to judge by; raise "
                "it, or give more rows"
            )
        if weights is None:
            return learnt[0], learnt[1], None, (held_out[0], held_out[1], None)
        return learnt[0], learnt[1], learnt[2], (held_out[0], held_out[1], held_out[2])

    def _layer_sizes(self, n_in: int, hidden: list[int]) -> list[tuple[int, str]]:
        """Return units and activation of each layer, the input's first."""
        _, _, out_activation, n_out = self._objective()
        inner = ACTIVATION_NAMES[self.activation]
        return [(n_in, ""), *((units, inner) for units in hidden), (n_out, out_activation)]

    def _new_model(self, n_in: int, hidden: list[int], seed: int) -> Sequential:
        sizes = self._layer_sizes(n_in, hidden)
        layers: list[Any] = [Input((n_in,))]
        for number, ((fan_in, _), (units, activation)) in enumerate(pairwise(sizes), 1):
            bound = math.sqrt((2.0 if self.activation in ("logistic", "sigmoid") else 6.0) / (fan_in + units))
            layers.append(
                Dense(
                    units,
                    activation,
                    kernel_initializer=RandomUniform(-bound, bound),
                    bias_initializer=RandomUniform(-bound, bound),
                    name=f"hidden_{number}" if number <= len(hidden) else "output",
                )
            )
        model = Sequential(layers, name=type(self).__name__, dtype=self.dtype)
        model.seed = seed
        model.build((None, n_in))
        return model

    def _known_model(self, hidden: list[int]) -> Sequential:
        """Return the model to go on with; a ValueError if the parameters are those of another."""
        model: Sequential = self.model_
        sizes: list[tuple[int, str]] = [(model.network.n_in, "")]
        for layer in model.layers:
            assert isinstance(layer, Dense)
            sizes.append((layer.units, layer.activation.name))
        wanted = self._layer_sizes(model.network.n_in, hidden)
        if sizes != wanted or str(model.dtype) != self.dtype:
            raise ValueError(
                f"{type(self).__name__}: hidden_layer_sizes, activation, dtype and the number of outputs must stay as "
                f"they are while the fit goes on (warm_start, partial_fit); fitted were {sizes[1:]} in {model.dtype}, "
                f"asked for are {wanted[1:]} in {self.dtype}"
            )
        return model

    def _optimizer(self) -> Optimizer:
        if self.solver == "sgd":
            return SGD(self.learning_rate_init, self.momentum, self.nesterovs_momentum)
        return Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- what has been fitted -----------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> Floats:
        """Return the outputs of the network, (rows, units)."""
        check_is_fitted(self, "model_")
        _checks.refuse_masked("X", X)
        outputs: Floats = self.model_.predict(_dense(validate_data(self, X, reset=False, **_TAKEN)))
        return outputs

    @property
    def coefs_(self) -> list[Floats]:
        """Copies of the weight matrices, (n_in, units) each, layer by layer."""
        check_is_fitted(self, "model_")
        return list(self.model_.get_weights()[::2])

    @property
    def intercepts_(self) -> list[Floats]:
        """Copies of the bias vectors, (units,) each, layer by layer."""
        check_is_fitted(self, "model_")
        return list(self.model_.get_weights()[1::2])

    @property
    def n_layers_(self) -> int:
        """Layers, the input and the output counted."""
        check_is_fitted(self, "model_")
        return len(self.model_.layers) + 1

    @property
    def n_outputs_(self) -> int:
        """Units of the output layer."""
        check_is_fitted(self, "model_")
        return self.model_.network.n_out

    @property
    def out_activation_(self) -> str:
        """The output layer's activation, in scikit-learn's words."""
        check_is_fitted(self, "model_")
        name = self.model_.network.activation_of(self.model_.network.layers[-1]).name
        return OUT_ACTIVATION_NAMES.get(name, name)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = _to_bytes(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "model_" in state:
            state = {**state, "model_": _from_bytes(state["model_"])}
        super().__setstate__(state)


def _dense(X: Any) -> npt.NDArray[Any]:
    """Return rows as the engine reads them: encoders hand over sparse ones unasked."""
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X)


def _set_penalty(model: Sequential, l2: float) -> None:
    """Penalise the kernels' squares by ``l2`` from now on: it depends on the batch, which may change between fits."""
    network = model.network
    for layer in model.layers:
        if isinstance(layer, Dense):
            layer.kernel_regularizer = L2(l2) if l2 else None
    for parameter, segment in zip(network.parameters, network.segments, strict=True):
        if parameter.name.endswith("/kernel"):
            segment["l2"] = l2


def _to_bytes(model: Sequential) -> bytes:
    """Return the model's file, optimizer included: a pickle holds that, since a model holds compiled functions."""
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        path = Path(folder, "model.safetensors")
        model.save(path)
        return path.read_bytes()


def _from_bytes(content: bytes) -> Sequential:
    with tempfile.TemporaryDirectory(prefix="nbdense-") as folder:
        path = Path(folder, "model.safetensors")
        path.write_bytes(content)
        model: Sequential = load_model(path)
        return model
