"""`Progress`: what goes on around an estimator's epochs, as in scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.callbacks.base import Callback, Logs
from nbdense.estimators.rows import Rows, outputs_of
from nbdense.optimizers import Optimizer
from nbdense.training.loop import LossNotFiniteError

State = tuple[npt.NDArray[Any], npt.NDArray[Any], int]  # weights, the optimizer's slots, and its count of batches

SMALLEST_RATE = 1e-6  # where learning_rate="adaptive" gives up instead of dividing it by 5


class Progress(Callback):
    """The keeper of an estimator's loss curve, which stops its fit and sets its learning rate, as scikit-learn does.

    Parameters
    ----------
    estimator : BaseMLP
        The estimator that is fitted.
    rows : int
        Rows that it learns from.
    judged : Rows or None
        Rows that each epoch is judged by.
    incremental : bool
        Whether this is one of several calls of ``partial_fit``.
    """

    def __init__(self, estimator: Any, rows: int, judged: Rows | None, incremental: bool) -> None:
        self.estimator, self.rows, self.judged, self.incremental = estimator, rows, judged, incremental
        self._diverged = False
        self._first: State | None = None  # before any step
        self._began: State | None = None  # before the last epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        fitted = self.estimator
        fitted.n_iter_, fitted.converged_ = 0, False
        self._first = self._state()
        if fitted.early_stopping and fitted.validation_scores_ and fitted._best_state is None:
            fitted._best_state = self._first  # a fit leaves its best weights, and this one goes on from them

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._began = self._state()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        assert logs is not None
        fitted = self.estimator
        fitted.n_iter_ += 1
        fitted.t_ += self.rows
        fitted.loss_ = float(logs["loss"])
        fitted.loss_curve_.append(fitted.loss_)
        if fitted.verbose:
            print(f"Iteration {fitted.n_iter_}, loss = {fitted.loss_:.8f}")
        if self._better():
            fitted._no_improvement_count = 0
        else:
            fitted._no_improvement_count += 1
        optimizer = self.model.optimizer
        assert optimizer is not None
        if fitted.solver == "sgd" and fitted.learning_rate == "invscaling":
            optimizer.learning_rate = fitted.learning_rate_init / (fitted.t_ + 1) ** fitted.power_t
        if fitted._no_improvement_count > fitted.n_iter_no_change:
            self._stop(optimizer)

    def _better(self) -> bool:
        """Tell whether this epoch's loss or score is better by ``tol`` than the best; the best are kept."""
        fitted = self.estimator
        if fitted.early_stopping:
            least = fitted.best_validation_score_ + fitted.tol
            return bool(self._score() >= least)
        better = fitted.loss_ <= fitted.best_loss_ - fitted.tol
        fitted.best_loss_ = min(fitted.best_loss_, fitted.loss_)
        if self.judged is not None:
            self._score()
        return bool(better)

    def _score(self) -> float:
        """Return the score of the rows that are looked at, and keep the weights if it is the best."""
        fitted = self.estimator
        assert self.judged is not None
        X, targets, weights = self.judged
        outputs = outputs_of(self.model, X)
        is_finite = not self._diverged and np.isfinite(outputs).all()
        score = fitted._held_out_score(outputs, targets, weights) if is_finite else math.nan
        fitted.validation_scores_.append(score)
        if fitted.verbose:
            print(f"Validation score: {score:f}")
        if score > fitted.best_validation_score_:
            fitted.best_validation_score_ = score
            fitted._best_state = self._state() if fitted.early_stopping else None
        return float(score)

    def _stop(self, optimizer: Optimizer) -> None:
        fitted = self.estimator
        criterion = "Validation score" if fitted.early_stopping else "Training loss"
        epochs = fitted.n_iter_no_change
        message = f"{criterion} did not improve more than tol={fitted.tol:f} for {epochs} consecutive epochs."
        if fitted.solver == "sgd" and fitted.learning_rate == "adaptive" and optimizer.learning_rate > SMALLEST_RATE:
            optimizer.learning_rate /= 5.0
            fitted._no_improvement_count = 0
            message += f" Setting learning rate to {optimizer.learning_rate:f}"
        else:
            fitted.converged_ = self.model.stop_training = True
            message += " Stopping."
        if fitted.verbose:
            print(message)

    def settle(self, error: LossNotFiniteError | None, loss_of_weights: Callable[[], float]) -> bool:
        """Leave good weights in place: those of the best score where that ends a fit, else the last with a finite loss.

        A fit knows the loss before each step, and so not what its last step has made of it.

        Parameters
        ----------
        error : LossNotFiniteError or None
            What ended the fit; the epoch that it came in counts, with the loss of what is left in place, and no score.
        loss_of_weights : function
            Gives the loss of the present weights over all rows.

        Returns
        -------
        bool
            Whether the fit diverged.

        Raises
        ------
        LossNotFiniteError
            If the loss was not finite before the first step.
        """
        fitted = self.estimator
        ends = fitted.converged_ or not self.incremental
        best = fitted._best_state if fitted.early_stopping and ends else None
        states = [state for state in (best, self._state(), self._began, self._first) if state is not None]
        for state in states:
            self._put(state)
            loss = loss_of_weights()
            if math.isfinite(loss):
                break
        else:
            raise error or LossNotFiniteError(f"the loss is {loss} before any step; scale X and y")
        if error is not None:
            self._diverged = True
            self.on_epoch_end(fitted.n_iter_, {"loss": loss})
        if ends:
            fitted._best_state = None  # it is the model's
        return error is not None or state is not states[0]

    def _state(self) -> State:
        """Return copies of the weights and the optimizer's slots, and its count of batches."""
        assert self.model.optimizer is not None
        return self.model.network.params.copy(), self.model.state[1:].copy(), self.model.optimizer.batches

    def _put(self, state: State) -> None:
        assert self.model.optimizer is not None
        self.model.network.params[:], self.model.state[1:], self.model.optimizer.batches = state
