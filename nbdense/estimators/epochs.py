"""Solvers that go by batches, in epochs: a fit of the Sequential, watched as scikit-learn watches its own."""

from __future__ import annotations

from typing import Any

from nbdense.estimators.progress import Progress
from nbdense.estimators.rows import Rows
from nbdense.models import Sequential
from nbdense.training.loop import LossNotFiniteError
from nbdense.training.sparse_rows import is_sparse


def train_in_epochs(
    estimator: Any, model: Sequential, rows: Rows, judged: Rows | None, batch: int, incremental: bool
) -> str:
    """Fit a model, by one epoch where that is ``incremental``; the estimator's records are kept.

    Parameters
    ----------
    estimator : BaseMLP
        The estimator.
    model : Sequential
        Its model, compiled.
    rows : Rows
        Rows to learn from.
    judged : Rows or None
        Rows that each epoch is judged by.
    batch : int
        Rows a step.
    incremental : bool
        Whether this is a call of ``partial_fit``.

    Returns
    -------
    str
        What to warn of: that the fit has diverged, or has not converged; else an empty string.

    Raises
    ------
    LossNotFiniteError
        If the loss is not finite before the first step.
    """
    progress = Progress(estimator, rows.n_rows, judged, incremental)

    def loss_of_weights() -> float:
        at_once = batch if is_sparse(rows.X) else None
        loss: float = model.evaluate(rows.X, rows.targets, batch_size=at_once, sample_weight=rows.weights)
        return loss

    error: LossNotFiniteError | None = None
    try:
        if incremental and batch == rows.n_rows:
            _step(model, rows, progress)
        else:
            model.fit(
                rows.X,
                rows.targets,
                batch_size=batch,
                epochs=1 if incremental else int(estimator.max_iter),
                verbose=0,
                callbacks=[progress],
                shuffle=bool(estimator.shuffle) and batch < rows.n_rows,  # a single batch has no order
                sample_weight=rows.weights,
            )
    except KeyboardInterrupt:
        progress.settle(None, loss_of_weights)
        raise
    except LossNotFiniteError as ended:
        error = ended
    if progress.settle(error, loss_of_weights):
        return (
            f"Stochastic Optimizer: The loss was no longer finite in iteration {estimator.n_iter_}: the weights are "
            "the last whose loss was. A smaller learning_rate_init may help, or X and y scaled."
        )
    if not (estimator.converged_ or incremental) and estimator.n_iter_ == estimator.max_iter:
        return (
            f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization hasn't "
            "converged yet."
        )
    return ""


def _step(model: Sequential, rows: Rows, progress: Progress) -> None:
    """Train for an epoch that is a single step."""
    progress.set_model(model)
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    loss = model.train_step(rows.n_rows)(rows.X, rows.targets, rows.weights)
    progress.on_epoch_end(0, {"loss": loss})
