"""`Progress`: what goes on around an estimator's epochs, as in scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.callbacks.base import Callback, Logs
from nbdense.optimizers import Optimizer
from nbdense.training.loop import LossNotFiniteError

Floats = npt.NDArray[np.floating[Any]]
HeldOut = tuple[npt.NDArray[Any], npt.NDArray[Any], Floats | None]  # rows, targets, weights
_State = tuple[npt.NDArray[Any], npt.NDArray[Any], int]

SMALLEST_RATE = 1e-6  # where learning_rate="adaptive" gives up instead of dividing it by 5


class Progress(Callback):
    """The keeper of an estimator's loss curve, which stops its fit and sets its learning rate, as scikit-learn does.

    Parameters
    ----------
    estimator : BaseMLP
    rows : int
        Rows that it learns from.
    held_out : tuple or None
        Rows, targets and weights held out for early stopping.
    """

    def __init__(self, estimator: Any, rows: int, held_out: HeldOut | None) -> None:
        self.estimator, self.rows, self.held_out = estimator, rows, held_out
        self.stopped = False
        self._first: _State | None = None  # before any step
        self._began: _State | None = None  # before the last epoch
        self._best: _State | None = None  # by the score of the rows held out

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.estimator.n_iter_ = 0
        self._first = self._state()

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
        if self.held_out is None:
            better = fitted.loss_ <= fitted.best_loss_ - fitted.tol
            fitted.best_loss_ = min(fitted.best_loss_, fitted.loss_)
            return bool(better)
        X, targets, weights = self.held_out
        outputs = self.model.predict(X)
        score = fitted._held_out_score(outputs, targets, weights) if np.isfinite(outputs).all() else math.nan
        fitted.validation_scores_.append(score)
        if fitted.verbose:
            print(f"Validation score: {score:f}")
        better = score >= fitted.best_validation_score_ + fitted.tol
        if score > fitted.best_validation_score_:
            fitted.best_validation_score_, self._best = score, self._state()
        return bool(better)

    def _stop(self, optimizer: Optimizer) -> None:
        fitted = self.estimator
        criterion = "Training loss" if self.held_out is None else "Validation score"
        epochs = fitted.n_iter_no_change
        message = f"{criterion} did not improve more than tol={fitted.tol:f} for {epochs} consecutive epochs."
        if fitted.solver == "sgd" and fitted.learning_rate == "adaptive" and optimizer.learning_rate > SMALLEST_RATE:
            optimizer.learning_rate /= 5.0
            fitted._no_improvement_count = 0
            message += f" Setting learning rate to {optimizer.learning_rate:f}"
        else:
            self.stopped = self.model.stop_training = True
            message += " Stopping."
        if fitted.verbose:
            print(message)

    def settle(self, error: LossNotFiniteError | None, loss_of_weights: Callable[[], float]) -> bool:
        """Leave good weights in place: the best epoch's where rows were held out, else the last with a finite loss.

        A fit knows the loss before each step, and so not what its last step has made of it.

        Parameters
        ----------
        error : LossNotFiniteError or None
            What ended the fit; the epoch that it came in counts, with the loss and the score of what is left in place.
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
        states = [state for state in (self._best, self._state(), self._began, self._first) if state is not None]
        for state in states:
            self._put(state)
            loss = loss_of_weights()
            if math.isfinite(loss):
                break
        else:
            raise error or LossNotFiniteError(f"the loss is {loss} before any step; scale X and y")
        if error is not None:
            self.on_epoch_end(self.estimator.n_iter_, {"loss": loss})
        return error is not None or state is not states[0]

    def _state(self) -> _State:
        """Return copies of the weights and the optimizer's slots, and its count of steps."""
        assert self.model.optimizer is not None
        return self.model.network.params.copy(), self.model.state[1:].copy(), self.model.optimizer.iterations

    def _put(self, state: _State) -> None:
        assert self.model.optimizer is not None
        self.model.network.params[:], self.model.state[1:], self.model.optimizer.iterations = state
