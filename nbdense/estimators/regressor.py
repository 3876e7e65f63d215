"""`MLPRegressor`: numbers, and the losses of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense.estimators.base import BaseMLP
from nbdense.estimators.parameters import got
from nbdense.estimators.progress import Floats
from nbdense.losses import Loss

# After base, which says what to install where there is none
from sklearn.base import RegressorMixin  # isort: skip
from sklearn.metrics import r2_score  # isort: skip
from sklearn.utils import column_or_1d  # isort: skip

# What a regressor minimises: nbdense's loss, and the factor that makes it scikit-learn's
REGRESSION_LOSSES = {
    "squared_error": ("mean_squared_error", 0.5),
    "absolute_error": ("mean_absolute_error", 1.0),
    "huber": ("huber", 1.0),
}


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron for numbers: scikit-learn's, trained by nbdense.

    The loss of several outputs is the sum over them.

    Parameters
    ----------
    loss : {"squared_error", "absolute_error", "huber"}
        Loss to minimise, on average: half the squared error, the absolute one, or Huber's with delta = 1. There is no
        "poisson".
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; none of them for linear regression.
    activation : str
        Activation of hidden layers: "identity", "logistic", "tanh", "relu", or any in `nbdense.activations.ACTIVATIONS`
        but softmax.
    solver : {"adam", "sgd"}
        There is no "lbfgs".
    alpha : float
        L2 penalty: alpha / 2 times the squared weights, over the batch's size, is added to the loss.
    batch_size : int or "auto"
        Rows a step; auto is 200, or as many as there are.
    learning_rate : {"constant", "invscaling", "adaptive"}
        Course of sgd's rate: invscaling divides by the ``power_t``-th power of the rows seen; adaptive divides by 5
        where it would stop, down to 1e-6.
    learning_rate_init : float
        Step size.
    power_t : float
        See ``learning_rate``.
    max_iter : int
        Epochs, at most.
    shuffle : bool
        A new order of rows each epoch.
    random_state : int, RandomState or None
        Seed of initial weights, the order of rows and what is held out.
    tol : float
        The least change that counts as an improvement.
    verbose : bool
        Whether each epoch prints its loss.
    warm_start : bool
        Whether fit goes on from the weights there are.
    momentum : float
        Momentum of sgd, in [0, 1).
    nesterovs_momentum : bool
        Whether sgd's momentum is Nesterov's.
    early_stopping : bool
        Whether to hold rows out, stop when their score (R squared) has stopped improving, and keep the best weights.
        Without it the loss is what has to improve.
    validation_fraction : float
        The share of rows held out.
    beta_1, beta_2, epsilon : float
        Adam's decay rates, and what is added to its denominator.
    n_iter_no_change : int
        More epochs than these without an improvement end the fit.
    dtype : {"float32", "float64"}
        Type of weights and computation.

    Attributes
    ----------
    model_ : Sequential
        The network.
    coefs_, intercepts_ : list of ndarray
        Copies of its weights, (n_in, units), and biases, (units,).
    loss_, best_loss_ : float
        Loss of the last epoch, and the least of all; early stopping has no best loss.
    loss_curve_ : list of float
        Losses of all epochs; each with the penalty.
    validation_scores_, best_validation_score_ : list of float, float
        Scores on the rows held out; None without early stopping.
    n_iter_, t_ : int
        Epochs of the last fit; rows seen by all.
    n_features_in_, n_layers_, n_outputs_ : int
        Columns, layers with input and output, and the output's units.
    feature_names_in_ : ndarray of str
        The columns' names, where ``X`` had some.

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
        loss: str = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
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
        dtype: str = "float32",
    ) -> None:
        self._keep(locals())

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, from where the last call left off.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As for `fit`.
        """
        return self._fit(X, y, sample_weight, incremental=True)

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
        if not isinstance(self.loss, str) or self.loss not in REGRESSION_LOSSES:
            raise ValueError(f"MLPRegressor: loss must be one of {', '.join(REGRESSION_LOSSES)}, got {got(self.loss)}")
        return super()._check_parameters()

    def _encode(self, y: Any, fresh: bool) -> npt.NDArray[Any]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = y.reshape(len(y), -1)
        if fresh:
            self._outputs_wanted = y.shape[1]
        elif y.shape[1] != self._outputs_wanted:
            raise ValueError(f"y: expected shape (rows, {self._outputs_wanted}) as in earlier calls, got {y.shape}")
        return np.asarray(y)

    def _objective(self) -> tuple[str | Loss, float, str, int]:
        loss, factor = REGRESSION_LOSSES[self.loss]
        return loss, factor * self._outputs_wanted, "linear", self._outputs_wanted

    def _held_out_score(self, outputs: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> float:
        with np.errstate(over="ignore", invalid="ignore"):  # of a fit that diverges
            return float(r2_score(targets, outputs, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
