"""The base of `MLPClassifier` and `MLPRegressor`: scikit-learn's conventions, and training by a Sequential.

Names, defaults and meanings are those of scikit-learn's `sklearn.neural_network`: the loss of a batch is the mean over
its rows plus alpha / 2 times the squared weights over the batch's size, a fit stops when the loss (or the held-out
score) has stopped improving, and initial weights are uniform as there (Glorot and Bengio 2010). Random numbers are
nbdense's own: equal seeds give other weights than scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._warn import warn
from nbdense.estimators.networks import Sizes, dense, from_bytes, new_model, set_penalty, sizes_of, to_bytes
from nbdense.estimators.parameters import ACTIVATION_NAMES, COUNT, OUT_ACTIVATION_NAMES, RULES, got
from nbdense.estimators.progress import Floats, HeldOut, Progress
from nbdense.losses import Loss
from nbdense.models import Sequential
from nbdense.optimizers import SGD, Adam, Optimizer
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

_TAKEN: dict[str, Any] = {"dtype": "numeric", "accept_sparse": ("csr", "csc", "coo")}  # what X may be


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
        X = dense(X)
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
        if fresh:
            sizes = self._layer_sizes(X.shape[1], hidden)
            model = new_model(type(self).__name__, sizes, self.activation, self.dtype, seed)
            self.loss_curve_: list[float] = []
            self.t_ = 0
        else:
            model = self._known_model(hidden)
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
        set_penalty(model, 0.5 * self.alpha / (batch * of_row))  # a row of weight 2 counts as two rows
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
            set_penalty(model, 0.5 * self.alpha)
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
        if not all(COUNT[0](size) for size in listed):
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

    def _layer_sizes(self, n_in: int, hidden: list[int]) -> Sizes:
        """Return units and activation of each layer, the input's first."""
        _, _, out_activation, n_out = self._objective()
        inner = ACTIVATION_NAMES[self.activation]
        return [(n_in, ""), *((units, inner) for units in hidden), (n_out, out_activation)]

    def _known_model(self, hidden: list[int]) -> Sequential:
        """Return the model to go on with; a ValueError if the parameters are those of another."""
        model: Sequential = self.model_
        sizes = sizes_of(model)
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
        outputs: Floats = self.model_.predict(dense(validate_data(self, X, reset=False, **_TAKEN)))
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
            state["model_"] = to_bytes(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "model_" in state:
            state = {**state, "model_": from_bytes(state["model_"])}
        super().__setstate__(state)
