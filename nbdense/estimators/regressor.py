"""`MLPRegressor`: numbers, and the losses of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense import losses
from nbdense.estimators.base import BaseMLP, Objective
from nbdense.estimators.parameters import got, is_lbfgs, is_loss, wanted_loss
from nbdense.estimators.rows import Floats
from nbdense.losses import Loss

# After base, which says what to install where there is none
from sklearn.base import RegressorMixin  # isort: skip
from sklearn.metrics import r2_score  # isort: skip
from sklearn.utils import column_or_1d  # isort: skip
from sklearn.utils.metaestimators import available_if  # isort: skip

_TINY = float(np.finfo(np.float32).tiny)


class HalfPoissonDeviance(Loss):
    """Half the Poisson deviance, mean over the columns: t log(t / y) - t + y of a count t and a rate y.

    Its slope by an exponential output's logarithm is y - t; `nbdense.losses.Poisson` adds 1e-7 to rates.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        logarithm = np.log(np.maximum(y_true, _TINY)) - np.log(np.maximum(y_pred, _TINY))
        return np.mean(y_true * logarithm - y_true + y_pred, axis=-1)


# What a regressor minimises: nbdense's loss, and the factor that makes it scikit-learn's
REGRESSION_LOSSES: dict[str, tuple[str | Loss, float]] = {
    "squared_error": ("mean_squared_error", 0.5),
    "absolute_error": ("mean_absolute_error", 1.0),
    "huber": ("huber", 1.0),
    "poisson": (HalfPoissonDeviance(), 1.0),
}


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron for numbers: scikit-learn's, trained by nbdense.

    The loss of several outputs is the sum over them.

    Parameters
    ----------
    loss : str, Loss or callable
        Loss to minimise, on average: "squared_error", half the squared error, "absolute_error", "huber" with delta = 1,
        or "poisson", half the Poisson deviance behind an exponential output, of counts; of several outputs the sum over
        them. Another of nbdense's losses, by name or as an object, or a function of (y_true, y_pred), as
        `nbdense.Sequential.compile` takes it.
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; none of them for linear regression.
    activation : str, Activation, or a sequence of these
        Activation of hidden layers: "identity", "logistic", "tanh", "relu", any in `nbdense.activations.ACTIVATIONS`
        that is not of whole rows, or one of your own; a sequence has one for each layer.
    solver : str or Optimizer
        "adam", "sgd" or "lbfgs"; another of nbdense's optimizers by name, such as "adamw" or "lion", with
        ``learning_rate_init`` as its rate; or an Optimizer, which has its own rate or schedule.
    alpha : float
        L2 penalty: alpha / 2 times the squared weights, over the batch's size, is added to the loss.
    batch_size : int or "auto"
        Rows a step; auto is 200, or as many as there are. lbfgs takes all.
    learning_rate : {"constant", "invscaling", "adaptive"}
        Course of sgd's rate: invscaling divides by the ``power_t``-th power of the rows seen; adaptive divides by 5
        where it would stop, down to 1e-6.
    learning_rate_init : float or schedule
        Step size, or one of `nbdense.schedules`.
    power_t : float
        See ``learning_rate``.
    max_iter : int
        Epochs, at most; iterations of lbfgs.
    shuffle : bool
        A new order of rows each epoch.
    random_state : int, RandomState or None
        Seed of initial weights, the order of rows, what is held out and what dropout drops.
    tol : float
        The least change that counts as an improvement; of lbfgs, the largest slope with which it ends.
    verbose : bool
        Whether each epoch prints its loss.
    warm_start : bool
        Whether fit goes on from the weights there are.
    momentum : float
        Momentum of sgd, in [0, 1].
    nesterovs_momentum : bool
        Whether sgd's momentum is Nesterov's.
    early_stopping : bool
        Whether to hold rows out, stop when their score (R squared) has stopped improving, and keep the best weights.
        Without it the loss is what has to improve. `fit` and `partial_fit` take an ``eval_set`` in their place; lbfgs
        has no epochs to stop.
    validation_fraction : float
        The share of rows held out.
    beta_1, beta_2, epsilon : float
        Adam's decay rates, and what is added to its denominator.
    n_iter_no_change : int
        More epochs than these without an improvement end the fit.
    max_fun : int
        Evaluations of the loss by lbfgs, at most.
    dropout : float or sequence of float
        The share of each hidden layer's outputs that is dropped in training; a sequence has one for each layer.
    batch_norm, layer_norm : bool
        Whether hidden layers are normalised before their activation, over the batch or over the layer's units.
    residual : bool
        Whether each hidden layer behind the first adds its input to what it makes of it.
    dtype : {"float32", "float64", "auto"}
        Type of weights and computation; auto is float32 where ``X`` is, and else float64, as in scikit-learn.

    Attributes
    ----------
    model_ : Sequential
        The network.
    coefs_, intercepts_ : list of ndarray
        Copies of its weights, (n_in, units), and biases, (units,).
    loss_, best_loss_ : float
        Loss of the last epoch or iteration, and the least of all; early stopping has no best loss.
    loss_curve_ : list of float
        Losses of all epochs or iterations; each with the penalty.
    validation_scores_, best_validation_score_ : list of float, float
        Scores on the rows held out, or of the ``eval_set``; None without either.
    n_iter_, t_ : int
        Epochs or iterations of the last fit; rows seen by all epochs.
    converged_ : bool
        Whether the last fit ended by itself; with early stopping, whether partial_fit has stopped.
    n_features_in_, n_layers_, n_outputs_ : int
        Columns, layers with input and output, and the output's units.
    feature_names_in_ : ndarray of str
        The columns' names, where ``X`` had some.
    out_activation_ : str
        The output's.

    Raises
    ------
    ValueError, TypeError
        By ``fit``, for a parameter or data that will not do.
    FloatingPointError
        By ``fit``, if the loss is not finite before any step: scale ``X`` and ``y``.

    Warns
    -----
    ConvergenceWarning
        By ``fit``, after ``max_iter`` epochs, or where a loss that is not finite ends it; the last good weights are
        kept.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.estimators import MLPRegressor
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> mlp = MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.02, random_state=0).fit(X, X[:, 0] ** 2)
    >>> bool(mlp.score(X, X[:, 0] ** 2) > 0.95)
    True
    """

    _y_numeric = True

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: Any = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: float | Sequence[float] = 0.0,
        batch_norm: bool = False,
        layer_norm: bool = False,
        residual: bool = False,
        dtype: str = "float32",
    ) -> None:
        self._keep(locals())

    @available_if(lambda estimator: not is_lbfgs(estimator))
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: Any = None) -> Self:
        """Train for one epoch on these rows, from where the last call left off.

        With ``early_stopping`` each call is judged by the ``eval_set``. Once the score has stopped improving,
        ``converged_`` is True, the best weights are in place, and further calls change nothing.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As for `fit`.
        eval_set : (X, y) or (X, y, sample_weight), optional
            As for `fit`; ``early_stopping`` needs it.
        """
        return self._fit(X, y, sample_weight, eval_set, incremental=True)

    def predict(self, X: Any) -> Floats:
        """Predict values.

        Parameters
        ----------
        X : array-like, (rows, columns)
            Numbers.

        Returns
        -------
        ndarray, (rows,) or (rows, outputs)
            float64; float32 where ``X`` is.
        """
        outputs = self._outputs(X)
        if getattr(X, "dtype", None) != np.float32:
            outputs = outputs.astype(np.float64, copy=False)
        return self._answers(outputs)

    def _answers(self, outputs: Floats) -> Floats:
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def _check_parameters(self) -> list[int]:
        if not is_loss(self.loss, REGRESSION_LOSSES):
            raise ValueError(f"MLPRegressor: loss must be {wanted_loss(REGRESSION_LOSSES)}, got {got(self.loss)}")
        return super()._check_parameters()

    def _encode(self, y: Any, fresh: bool) -> npt.NDArray[Any]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = y.reshape(len(y), -1)
        if fresh:
            self._outputs_wanted = y.shape[1]
        elif y.shape[1] != self._outputs_wanted:
            raise ValueError(f"y: expected shape (rows, {self._outputs_wanted}) as in earlier calls, got {y.shape}")
        if self._is_poisson and (y < 0).any():
            raise ValueError(f"y: loss 'poisson' takes counts, which are never negative, got {y.min()}")
        return np.asarray(y)

    @property
    def _is_poisson(self) -> bool:
        return isinstance(self.loss, str) and self.loss == "poisson"

    def _objective(self) -> Objective:
        units = self._outputs_wanted
        if isinstance(self.loss, str) and self.loss in REGRESSION_LOSSES:
            loss, factor = REGRESSION_LOSSES[self.loss]
            return Objective(loss, factor * units, "exponential" if self._is_poisson else "linear", units)
        return Objective(losses.for_training(self.loss), 1.0, "linear", units)

    def _held_out_score(self, outputs: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> float:
        with np.errstate(over="ignore", invalid="ignore"):  # of a fit that diverges
            return float(r2_score(targets, outputs, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
