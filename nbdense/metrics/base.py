"""The base of all metrics; `nbdense.metrics` has them."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from nbdense._checks import finite_number
from nbdense.engine.elementwise import loss as rows
from nbdense.losses import Loss

Array = npt.NDArray[Any]
COLLECTED = rows.COLLECTED


@dataclass(frozen=True)
class Metric:
    """A metric: the name it is reported under, and the code of its compiled form.

    A plain function (targets, outputs) -> number can be a metric. One with parameters is a frozen dataclass below
    this, with ``code: int = COLLECTED``, ``collects = True`` and a `compute`; and with ``direction = "max"`` or
    ``"min"``, so that callbacks and `importance` know which way it gets better.

    Parameters
    ----------
    name : str
        What fit and evaluate report it as.
    code : int
        Code of its compiled form, a number a row, in ``engine.loss.metric_of_row``.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from nbdense.metrics import COLLECTED, Metric
    >>> @dataclass(frozen=True)
    ... class ShareAbove(Metric):
    ...     name: str = "share_above"
    ...     code: int = COLLECTED
    ...     limit: float = 0.5
    ...     collects = True
    ...     direction = "max"
    ...
    ...     def compute(self, targets, outputs):
    ...         return float(np.mean(outputs > self.limit))
    >>> ShareAbove(limit=0.2).compute(None, np.array([[0.1], [0.4]]))
    0.5
    """

    name: str
    code: int
    collects: ClassVar[bool] = False  # whether it needs all outputs at once; then `compute` is asked
    # "max" or "min": which way is better, for callbacks with mode="auto" and for `importance`; empty where nobody said
    direction: ClassVar[str] = ""
    targets: ClassVar[str] = ""  # "rows": of the outputs' shape; "classes": class numbers; empty: either

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name == "loss":
            raise ValueError(
                f"{type(self).__name__}: name must be a non-empty string other than 'loss', got {self.name!r}"
            )
        self._check_direction(self.direction)

    def _check_direction(self, direction: str) -> None:
        if direction not in ("", "min", "max"):
            raise ValueError(f"{type(self).__name__}: direction must be 'max', 'min' or '', got {direction!r}")

    def finish(self, mean: float) -> float:
        """Return the metric from the mean over rows of its compiled form."""
        return mean

    def compute(self, targets: Array, outputs: Array) -> float:
        """Compute the metric of a whole data set, where it ``collects``.

        Parameters
        ----------
        targets : ndarray, (rows, n_out)
            Or (rows, 1) of class numbers, with a sparse loss.
        outputs : ndarray, (rows, n_out)
            What predict returns.

        Returns
        -------
        float
            NaN where the metric is not defined: no rows, NaN among the outputs, one class where it takes two.
        """
        raise NotImplementedError

    def for_loss(self, loss: Loss, n_out: int) -> Metric:
        """Return this metric for the targets that ``loss`` takes and for ``n_out`` outputs.

        Raises
        ------
        ValueError
            If it does not fit them.
        """
        if self.targets == "rows" and loss.sparse:
            raise ValueError(
                f"metric {self.name!r} needs targets of the outputs' shape, but {loss.name} takes class numbers"
            )
        if self.targets == "classes" and not loss.sparse:
            raise ValueError(f"metric {self.name!r} needs class numbers, but {loss.name} takes rows of targets")
        return self

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild it."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "code"}

    def renamed(self, name: str) -> Metric:
        """Return the same metric under another name."""
        other = copy.copy(self)
        other._set(name=name)
        return other

    def _set(self, **values: Any) -> None:  # for the constructors: instances are frozen
        for name, value in values.items():
            object.__setattr__(self, name, value)


def threshold_of(owner: str, name: str, value: Any) -> float:
    """Return a metric's threshold as a finite float, or raise: Keras's list of several is refused."""
    return finite_number(owner, name, value, expected="one finite number")
