"""The base of all metrics; `nbdense.metrics` has them."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense import initializers
from nbdense._checks import array_of
from nbdense._registry import Configured, call_text, snake_case
from nbdense.engine.elementwise import loss as rows
from nbdense.losses import Loss
from nbdense.variable import Variable

Array = npt.NDArray[Any]
COLLECTED = rows.COLLECTED
_DTYPES = ("float32", "float64")


class Metric(Configured):
    """A metric that is told of targets and outputs batch by batch, with Keras's methods.

    One of your own defines `update_state` and `result`, as in Keras, and makes its state by `add_variable`; or, where
    it needs all rows at once, `compute` alone. Its constructor's arguments are attributes of its objects: files keep
    them. ``direction = "max"`` or ``"min"`` tells callbacks and `importance` which way it gets better.

    Training leaves an object's state alone: it counts in a copy, or in the compiled program.

    Parameters
    ----------
    dtype : {None, "float32", "float64"}
        In which targets and outputs are compared with thresholds; float32 by default. State is float64.
    name : str, optional
        What fit and evaluate report it as; by default the class's name, as in "true_positives".

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.metrics import Metric
    >>> class Largest(Metric):
    ...     direction = "min"
    ...
    ...     def __init__(self, name="largest_error", **kwargs):
    ...         super().__init__(name=name, **kwargs)
    ...         self.largest = self.add_variable((), "zeros")
    ...
    ...     def update_state(self, y_true, y_pred, sample_weight=None):
    ...         self.largest.assign(np.maximum(self.largest, np.abs(y_true - y_pred).max()))
    ...
    ...     def result(self):
    ...         return float(self.largest)
    >>> metric = Largest()
    >>> metric.update_state(np.array([[1.0], [2.0]]), np.array([[1.5], [2.0]]))
    >>> metric.update_state(np.array([[1.0], [2.0]]), np.array([[1.0], [2.25]]))
    >>> metric.result()
    0.5
    """

    name: str
    code: int = COLLECTED  # of the compiled form, a number a row, in `engine.loss.metric_of_row`
    # "max" or "min": which way is better, for callbacks with mode="auto" and for `importance`; empty where nobody said
    direction: str = ""
    targets: str = ""  # "rows": of the outputs' shape; "classes": class numbers; empty: either
    weighted: bool = False  # whether a model hands it the rows' weights
    by_batch: bool = True  # whether its value may depend on how rows are cut into batches
    _dtype: str = _DTYPES[0]

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = snake_case(type(self).__name__) if name is None else name
        self._dtype = self._dtype if dtype is None else _dtype_name(type(self).__name__, dtype)
        self.__post_init__()

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if not isinstance(self.name, str) or not self.name or self.name == "loss":
            raise ValueError(f"{owner}: name must be a non-empty string other than 'loss', got {self.name!r}")
        if self.direction not in ("", "min", "max"):
            raise ValueError(f"{owner}: direction must be 'max', 'min' or '', got {self.direction!r}")

    @property
    def collects(self) -> bool:
        """True where it has no compiled form: each batch's outputs are handed to `update_state` then."""
        return self.code == COLLECTED

    @property
    def dtype(self) -> str:
        """Name of the dtype in which targets and outputs are compared with thresholds."""
        return self._dtype

    # -- state: made when it is first wanted, so that a class with a constructor of its own (a dataclass) has it too ---

    @functools.cached_property
    def _variables(self) -> list[Variable]:
        return []

    @functools.cached_property
    def _batches(self) -> list[tuple[Array, ...]]:
        return []

    def add_variable(
        self,
        shape: tuple[int, ...] | list[int],
        initializer: Any = None,
        dtype: Any = None,
        aggregation: str = "sum",
        name: str | None = None,
    ) -> Variable:
        """Make a variable of this metric's state; `reset_state` sets it to zero.

        Parameters
        ----------
        shape : tuple of int
            Its shape.
        initializer : str, Initializer or callable, optional
            Gives the first values; zeros by default.
        dtype : dtype-like, optional
            float64 by default: sums over many rows need it.
        aggregation : str
            Accepted for Keras's sake: there is one device.
        name : str, optional
            Name of the variable.

        Returns
        -------
        Variable
        """
        chosen = initializers.get("zeros" if initializer is None else initializer)
        assert chosen is not None  # as it is for None alone
        variable = Variable(chosen(tuple(shape), "float64"), dtype or "float64", name)
        self._variables.append(variable)
        return variable

    def add_weight(
        self,
        shape: tuple[int, ...] | list[int] = (),
        initializer: Any = None,
        dtype: Any = None,
        name: str | None = None,
    ) -> Variable:
        """Make a variable: `add_variable` under its older name.

        Parameters
        ----------
        shape : tuple of int
            Its shape.
        initializer : str, Initializer or callable, optional
            As for `add_variable`.
        dtype : dtype-like, optional
            As for `add_variable`.
        name : str, optional
            Name of the variable.

        Returns
        -------
        Variable
        """
        return self.add_variable(shape, initializer, dtype, name=name)

    @property
    def variables(self) -> list[Variable]:
        """Variables of the state, those of metrics among the attributes (and their lists and dicts) included."""
        inner = [metric for value in vars(self).values() for metric in _metrics_in(value)]
        return [*self._variables, *(variable for metric in inner for variable in metric.variables)]

    def reset_state(self) -> None:
        """Forget all that was counted: set the variables to zero."""
        self._batches.clear()
        for variable in self._variables:
            variable.assign(np.zeros(variable.shape))
        for value in vars(self).values():
            for metric in _metrics_in(value):
                metric.reset_state()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count in targets and outputs of a batch; here: keep them for `compute`.

        Parameters
        ----------
        y_true : array-like, (rows, n_out)
            Targets; a vector is a column.
        y_pred : array-like, (rows, n_out)
            Outputs; a vector is a column.
        sample_weight : array-like, optional
            A weight for each row.
        """
        if type(self).compute is Metric.compute:
            raise NotImplementedError(f"{type(self).__name__} must define update_state and result, or compute")
        batch: tuple[Array, ...] = as_columns(y_true, y_pred)
        if sample_weight is not None:
            if len(_arguments(type(self).compute)) < 3:
                raise ValueError(f"metric {self.name!r} weighs no rows: its compute takes targets and outputs alone")
            batch = (*batch, np.broadcast_to(np.asarray(sample_weight).reshape(-1), len(batch[1])))
        if self._batches and len(batch) != len(self._batches[0]):
            raise ValueError(f"metric {self.name!r}: give each batch a sample_weight, or none")
        self._batches.append(tuple(np.array(part) for part in batch))

    def result(self) -> Any:
        """Return the metric of what was counted: a number, an array of them, or a dict of numbers by name."""
        if type(self).compute is Metric.compute:
            raise NotImplementedError(f"{type(self).__name__} must define update_state and result, or compute")
        if not self._batches:
            return float("nan")
        return self.compute(*(np.concatenate(parts) for parts in zip(*self._batches, strict=True)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Count in targets and outputs, and return the metric of all that was counted."""
        self.update_state(*args, **kwargs)
        return self.result()

    def compute(self, targets: Array, outputs: Array) -> Any:
        """Compute the metric of a whole data set, whatever was counted before.

        Parameters
        ----------
        targets : ndarray, (rows, n_out)
            Or (rows, 1) of class numbers, with a sparse loss.
        outputs : ndarray, (rows, n_out)
            What predict returns.

        Returns
        -------
        float or ndarray
            What `result` returns.
        """
        return self.fresh()(targets, outputs)

    def finish(self, mean: float) -> float:
        """Return the metric from the mean over rows of its compiled form."""
        return mean

    def fresh(self) -> Self:
        """Return a copy that has counted nothing."""
        other = copy.deepcopy(self, {id(self._batches): []})  # rows that it keeps need not be copied
        other.reset_state()
        return other

    # -- in a model ---------------------------------------------------------------------------------------------------

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
        names = [each.name for each in _arguments(type(self).__init__) if hasattr(self, each.name)]
        if any(each.kind is each.VAR_KEYWORD for each in _arguments(type(self).__init__)):
            names += ["name", "dtype"]
        return {name: getattr(self, name) for name in dict.fromkeys(names) if name != "code"}

    def renamed(self, name: str) -> Self:
        """Return the same metric under another name; it has counted nothing."""
        other = self.fresh()
        other.__dict__["name"] = name  # dataclasses may be frozen
        return other

    def taking_weights(self) -> Self:
        """Return the same metric, to be handed rows' weights by a model; it has counted nothing."""
        other = self.fresh()
        other.__dict__ |= {"weighted": True, "code": COLLECTED}  # no compiled form has weights
        return other

    def __repr__(self) -> str:
        return call_text(self, self.get_config())


def _metrics_in(value: Any) -> list[Metric]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return [part for part in parts if isinstance(part, Metric)]


def _arguments(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())[1:]


def _dtype_name(owner: str, dtype: Any) -> str:
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", getattr(dtype, "__name__", None))
    if name not in _DTYPES:
        raise ValueError(f"{owner}: dtype must be None, 'float32' or 'float64', got {dtype!r}")
    return name


def plain_number(value: Any) -> Any:
    """Return an array without axes as a float, and others as they are."""
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array


def as_columns(targets: Any, outputs: Any) -> tuple[Array, Array]:
    """Return targets and outputs as matrices of as many rows; a vector is a column.

    Raises
    ------
    ValueError
        If ``targets`` has neither one column nor as many as ``outputs``.
    """
    targets, outputs = array_of("y_true", targets), array_of("y_pred", outputs)
    targets, outputs = (value.reshape(-1, 1) if value.ndim == 1 else value for value in (targets, outputs))
    if targets.ndim != 2 or outputs.ndim != 2 or targets.shape not in ((len(outputs), 1), outputs.shape):
        raise ValueError(f"compute: targets of shape {targets.shape} do not go with outputs of shape {outputs.shape}")
    return targets, outputs


def one_hot_targets(y_true: Array, y_pred: Array) -> Array:
    """Return class numbers, a column beside several columns of outputs, as rows with a 1 at the class."""
    if y_pred.ndim != 2 or y_pred.shape[1] == 1 or y_true.size != len(y_pred) or y_true.ndim > 2:
        return y_true
    return np.asarray(y_true.reshape(-1, 1) == np.arange(y_pred.shape[1]))
