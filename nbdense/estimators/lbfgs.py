"""Solver "lbfgs": scipy's L-BFGS-B on the loss of all rows and its gradient, both of the compiled program.

Method: Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization" (1995); there are no
bounds here.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.estimators.rows import Rows
from nbdense.models import Sequential
from nbdense.training import phases
from nbdense.training.evaluation import Room
from nbdense.training.feeding import feed_of
from nbdense.training.loop import LossNotFiniteError

ROWS_AT_ONCE = 1024  # whose activations stay in the cache; gradients are added up
LIMIT = 1  # scipy's status where max_iter or max_fun has ended it

Vector = npt.NDArray[np.float64]


class OneBlasThread:
    """A context in which BLAS, which scipy's steps call, has one thread; several may be entered at a time.

    Its own threads would spin after each call for some ms, on the CPUs that the loss of all rows is to be computed on.
    Asked from a thread other than the main one OpenBLAS leaves all as it is.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


@functools.cache
def _libraries() -> Any:
    """Return what finds the libraries with threads that are loaded; scipy's are by now."""
    from threadpoolctl import ThreadpoolController  # scikit-learn needs it too

    return ThreadpoolController()


one_blas_thread = OneBlasThread()


class LossOfAllRows:
    """The mean loss of all rows, penalty included, and its gradient: functions of all parameters as one vector.

    Parameters
    ----------
    model : Sequential
        Built and compiled; its weights are those of the last vector.
    rows : Rows
        All rows.
    """

    def __init__(self, model: Sequential, rows: Rows) -> None:
        state = model.train_state
        self._network, self._count = state.network, rows.n_rows
        self._feed = feed_of(state, rows.X, rows.targets, rows.weights, ROWS_AT_ONCE, None)
        objective, _ = state.objective(reports=False)
        self._workspace = Room(state, objective).workspace(self._feed.batch)
        self._plan = self._workspace.plan(phases.training(self._network.layers, updates=False))
        # Without the padding between rows of kernels, which stays zero
        numbers = self._network.tensors(np.arange(self._network.params.size))
        self._places = np.concatenate([places.ravel() for places in numbers.values()])
        self._largest: float | None = None  # of the losses so far

    @property
    def vector(self) -> Vector:
        """All parameters."""
        return self._network.params[self._places].astype(np.float64)

    @vector.setter
    def vector(self, vector: Vector) -> None:
        self._network.params[self._places] = vector
        self._network.version += 1

    def __call__(self, vector: Vector) -> tuple[float, Vector]:
        """Return the loss at a vector of parameters and its gradient.

        Raises
        ------
        LossNotFiniteError
            If the first loss is not finite; in place of later ones come larger losses than all, and a line search turns
            back.
        """
        self.vector = vector
        loss, gradient, first, batch = 0.0, None, 0, self._feed.batch
        self._feed.begin(0)
        while math.isfinite(loss) and (steps := self._feed.take(first, 1)) is not None:
            data, at, _ = steps
            done, totals = self._plan.run(data, first_step=at)
            loss += totals.item(0) if done else math.nan
            part = self._workspace.state[0][self._places] * float(min(batch, self._count - first * batch))
            gradient = part.astype(np.float64) if gradient is None else gradient + part
            first += 1
        assert gradient is not None
        loss, gradient = loss / self._count, gradient / self._count
        if math.isfinite(loss) and math.isfinite(gradient @ gradient):
            self._largest = loss if self._largest is None else max(loss, self._largest)
            return loss, gradient
        if self._largest is None:
            raise LossNotFiniteError(f"the loss is {loss} before any step; scale X and y")
        return 10.0 * (1.0 + abs(self._largest)), np.zeros(vector.size)


def minimise(estimator: Any, model: Sequential, rows: Rows) -> str:
    """Fit a model by L-BFGS-B; the estimator's losses and its count of iterations are kept.

    Parameters
    ----------
    estimator : BaseMLP
        The estimator, whose ``max_iter``, ``max_fun`` and ``tol`` count.
    model : Sequential
        Its model, compiled; left with the weights of the least loss.
    rows : Rows
        All rows.

    Returns
    -------
    str
        What to warn of: that a limit has ended the fit; else an empty string.

    Raises
    ------
    LossNotFiniteError
        If the loss is not finite before the first step.
    """
    from scipy.optimize import OptimizeResult, minimize

    function = LossOfAllRows(model, rows)
    best = function.vector
    estimator.n_iter_, estimator.converged_, estimator.loss_ = 0, False, math.inf

    def keep(intermediate_result: OptimizeResult) -> None:
        nonlocal best
        best, estimator.loss_ = intermediate_result.x.copy(), float(intermediate_result.fun)
        estimator.n_iter_ += 1
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")

    options = {"maxiter": int(estimator.max_iter), "maxfun": int(estimator.max_fun), "gtol": float(estimator.tol)}
    complaint = ""
    try:
        with one_blas_thread:
            result = minimize(function, best, method="L-BFGS-B", jac=True, callback=keep, options=options)
        best, estimator.loss_ = result.x, float(result.fun)
        estimator.n_iter_, estimator.converged_ = min(int(result.nit), int(estimator.max_iter)), result.status != LIMIT
        if result.status == LIMIT:
            complaint = (
                f"lbfgs failed to converge after {result.nit} iteration(s) and {result.nfev} evaluations of the loss: "
                f"increase max_iter ({estimator.max_iter}) or max_fun ({estimator.max_fun}), or scale the data"
            )
    finally:  # interrupted, too
        function.vector = best
        estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
    return complaint
