"""PruningSchedule: weights are removed little by little while a model trains."""

from __future__ import annotations

import math
import sys
from typing import Any

from nbdense.callbacks import Callback, Logs
from nbdense.callbacks.base import whole
from nbdense.quant.pruning.one_shot import sparsity_of
from nbdense.quant.pruning.rules import hold, rules_of, share_of
from nbdense.quant.pruning.structures import NEURON, NOfM

_LAST = 0.75  # of the steps of a fit, where no other end is given: the rest are for what is kept


class PruningSchedule(Callback):
    """A callback that prunes while a model trains, from one sparsity up to another.

    At step t, counted from the beginning of epoch 0, the sparsity is final + (initial - final) (1 - (t - begin) /
    (end - begin))^3: fast at first, while much can go, then slower (Zhu and Gupta 2017, arXiv:1710.01878, section 3).
    Every ``frequency`` steps from ``begin_step`` on, and at ``end_step``, weights are ranked anew; what goes is held at
    zero by the compiled program from then on, and so is what the optimizer knows of it. The model keeps its mask. A fit
    that is stopped and resumed with ``initial_epoch`` goes on as if it had not been.

    Parameters
    ----------
    final_sparsity, initial_sparsity : float
        Shares of the kernel weights, in [0, 1); the first is met exactly, rounded as `prune` does.
    begin_step, end_step : int
        The steps between which weights are removed; None ends after three quarters of the fit's steps, so that the last
        quarter is for the weights that stay.
    frequency : int
        Steps between two times that weights are removed.
    structure, scope, criterion, exempt, block_size, calibration : optional
        As for `prune`. Neurons cannot be removed while a model trains: prune them between two fits.
    regrow : float
        Share of the weights kept, at most, whose place others take each time: those with the largest gradients on the
        data of ``calibration``, (x, y), which begin at zero. It falls to nothing by a cosine until ``end_step``. That
        undoes what was removed too early (Guo et al. 2016, "Dynamic Network Surgery", section 3.2; by gradients: Evci
        et al. 2020, "Rigging the Lottery", section 3; within such a schedule: Liu et al. 2021, "Sparse Training via
        Boosting Pruning Plasticity with Neuroregeneration", section 4).

    Raises
    ------
    ValueError
        For a number or an option that there is not; when a fit begins, for what does not suit the model.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((4,)), Dense(20, "relu"), Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(320, 4))
    >>> history = model.fit(x, x[:, :1], epochs=4, verbose=0, callbacks=[PruningSchedule(0.8, frequency=5)])
    >>> [round(sparsity, 2) for sparsity in history.history["sparsity"]]
    [0.56, 0.77, 0.8, 0.8]
    """

    def __init__(
        self,
        final_sparsity: float,
        initial_sparsity: float = 0.0,
        begin_step: int = 0,
        end_step: int | None = None,
        frequency: int = 100,
        *,
        structure: str = "unstructured",
        scope: str = "global",
        criterion: str = "magnitude",
        exempt: Any = (),
        block_size: Any = None,
        calibration: Any = None,
        regrow: float = 0.0,
    ) -> None:
        owner = type(self).__name__
        self.final_sparsity = share_of(owner, "final_sparsity", final_sparsity)
        self.initial_sparsity = share_of(owner, "initial_sparsity", initial_sparsity)
        self.begin_step, self.frequency = whole(self, "begin_step", begin_step), whole(self, "frequency", frequency, 1)
        self.end_step = None if end_step is None else whole(self, "end_step", end_step, self.begin_step)
        if structure == NEURON:
            raise ValueError(
                f"{owner}: structure 'neuron' changes the network, which cannot be done while it trains; call prune "
                "between two fits"
            )
        self._rules = rules_of(
            owner,
            structure=structure,
            scope=scope,
            criterion=criterion,
            exempt=exempt,
            block_size=block_size,
            calibration=calibration,
        )
        self.regrow = share_of(owner, "regrow", regrow)
        if self.regrow and (calibration is None or isinstance(self._rules.structure, NOfM)):
            raise ValueError(
                f"{owner}: regrow takes calibration=(x, y), whose gradients say what grows, and weights or blocks, not "
                "n:m"
            )
        self._end = self._before = self._done = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        steps, owner = self.params["steps"], type(self).__name__
        end = self.end_step
        if end is None:
            if steps is None:
                raise ValueError(f"{owner}: the data do not say how many steps an epoch has; give end_step")
            end = max(self.begin_step, int(_LAST * steps * self.params["epochs"]))
        self._end, self._done = end, 0
        self._rules.check(self.model, self.model.network, self.final_sparsity)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        steps = self.params["steps"]
        self._before = self._done if steps is None else epoch * steps
        self._done = self._before
        if self._done == 0 and self._is_due(0):
            self._prune(0)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._done = self._before + batch + 1
        if self._is_due(self._done):
            self._prune(self._done)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["sparsity"] = sparsity_of(self.model.network)

    def next_batch(self, batch: int) -> int:
        step = self._before + batch + 1  # the count of steps behind it
        since = max(0, step - self.begin_step)
        due = self.begin_step + -(-since // self.frequency) * self.frequency
        if step <= self._end < due:
            due = self._end
        return batch + due - step if due <= self._end else sys.maxsize

    def _is_due(self, step: int) -> bool:
        if not self.begin_step <= step <= self._end:
            return False
        return (step - self.begin_step) % self.frequency == 0 or step == self._end

    def _sparsity_at(self, step: int) -> float:
        final, initial = self.final_sparsity, self.initial_sparsity
        return final + (initial - final) * (1 - self._progress(step)) ** 3

    def _progress(self, step: int) -> float:
        return 1.0 if step >= self._end else (step - self.begin_step) / (self._end - self.begin_step)

    def _prune(self, step: int) -> None:
        model = self.model
        exchanged = self.regrow * (1 + math.cos(math.pi * self._progress(step))) / 2
        mask = self._rules.mask(model, model.network, self._sparsity_at(step), exchanged)
        if model.network.mask is not None and not self.regrow:
            mask *= model.network.mask  # what went before the schedule began stays away too
        hold(model.network, mask)
        model.state[:, mask == 0] = 0  # momenta would move what is held
