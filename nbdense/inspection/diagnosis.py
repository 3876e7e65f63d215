"""Diagnosis of a network's training: activations and gradients of every layer in one step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense._tables import Shown, Table
from nbdense.backends.base import Workspace
from nbdense.engine.elementwise.loss import SQUARED_ERROR
from nbdense.engine.memory import aligned_zeros
from nbdense.engine.rows import kind_of
from nbdense.engine.tables import IDLE
from nbdense.inspection.plots import label_places, new_axes
from nbdense.network import Network
from nbdense.training.evaluation import loss_and_gradient
from nbdense.training.state import Model

_DIES = ("relu", "relu6")  # activations that are flat at 0
_ENDS = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


@dataclass(frozen=True)
class Thresholds:
    """Limits at which `diagnose` warns.

    Parameters
    ----------
    vanishing : float
        The norm of the first dense layer's deltas over that of the last's, at most.
    exploding : float
        The same, at least.
    dead : float
        Share of a layer's relu units that are 0 for every row, at least.
    saturated : float
        Share of a layer's outputs that are at an end of a sigmoid or tanh (or of a softmax's rows that are nearly
        one-hot), at least.
    margin : float
        How near an end that is, as a share of the activation's range; at the default a sigmoid's or tanh's slope is
        4% of its steepest.
    """

    vanishing: float = 1e-3
    exploding: float = 1e3
    dead: float = 0.5
    saturated: float = 0.5
    margin: float = 0.01

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0.0:
                raise ValueError(f"Thresholds: {name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class ParameterRecord:
    """One parameter tensor.

    Attributes
    ----------
    norm : float
        Euclidean.
    gradient_norm : float or None
        Penalties included, before clipping; None where it does not learn, or the loss is not finite.
    ratio : float or None
        The gradient's norm over the parameter's; None where either is missing or the parameter is 0.
    """

    norm: float
    gradient_norm: float | None
    ratio: float | None


@dataclass(frozen=True)
class LayerRecord:
    """One layer of the compiled network; an Activation layer behind a linear Dense is part of that.

    Attributes
    ----------
    name, kind, activation : str
        "projection" and the layers inside a Residual are named "residual/...".
    shape : tuple of int
        Shape of one row's outputs: (positions, columns).
    mean, std : float
        Mean and standard deviation of all outputs.
    zeros : float
        Share of outputs that are 0.
    dead : float or None
        Share of units of a relu or relu6 that are 0 for every row.
    saturated : float or None
        Share of outputs of a sigmoid, hard_sigmoid or tanh at an end; of a softmax: share of rows that are nearly
        one-hot.
    finite : bool
        Whether all outputs are.
    delta_norm : float or None
        Euclidean norm, over the batch, of the derivative of the loss by what enters the activation; of dropout and
        batch normalisation, by their inputs, and of layers that only normalise a row, add or reshape, by their
        outputs. None where nothing before or in the layer learns, or the loss is not finite.
    parameters : dict of str to ParameterRecord
        Parameters by their names in ``Sequential.parameters``.
    """

    name: str
    kind: str
    activation: str
    shape: tuple[int, int]
    mean: float
    std: float
    zeros: float
    dead: float | None
    saturated: float | None
    finite: bool
    delta_norm: float | None
    parameters: dict[str, ParameterRecord] = field(default_factory=dict)


_HEAD = ("layer", "mean", "std", "zeros", "dead", "satur.", "|delta|", "|weight|", "|grad|", "ratio")


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """Results of `diagnose`; shown, they are a table with the warnings below.

    Attributes
    ----------
    loss : float
        Loss of the batch, penalties included.
    layers : list of LayerRecord
        Layers, in the order in which they run.
    warnings : list of str
        What is wrong, each with the layer's name.
    """

    loss: float
    layers: list[LayerRecord]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as dicts, lists, numbers and strings."""
        return dataclasses.asdict(self)

    def to_table(self) -> Table:
        rows = [
            (
                f"{r.name} ({r.activation if r.kind in ('dense', 'activation') else r.kind})",
                f"{r.mean:.3g}",
                f"{r.std:.3g}",
                *("-" if value is None else f"{value:.0%}" for value in (r.zeros, r.dead, r.saturated)),
                *("-" if value is None else f"{value:.2e}" for value in (r.delta_norm, *_largest(r))),
            )
            for r in self.layers
        ]
        return Table(_HEAD, rows, f"loss {self.loss:.6g}", [f"! {warning}" for warning in self.warnings])

    def plot(self, ax: Any = None) -> Any:
        """Draw each layer's deviation of activations, and norms of deltas and gradients, on a logarithmic axis.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default a new figure. Zeros and what is not finite are left out.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(ax)
        curves: dict[str, list[float | None]] = {
            "activations' standard deviation": [r.std for r in self.layers],
            "norm of deltas": [r.delta_norm for r in self.layers],
            "norm of the kernel's gradient": [_largest(r)[1] for r in self.layers],
        }
        ax.set_yscale("log")
        for label, values in curves.items():
            numbers = np.array([np.nan if value is None else value for value in values], np.float64)
            numbers[~(np.isfinite(numbers) & (numbers > 0))] = np.nan
            ax.plot(numbers, marker="o", label=label)
        label_places(ax, [r.name for r in self.layers])
        ax.legend()
        ax.set_title(f"loss {self.loss:.4g}")
        return ax


def _largest(record: LayerRecord) -> tuple[float | None, float | None, float | None]:
    """Return norm, gradient's norm and ratio of the layer's kernel or gamma, which stands for the layer."""
    first = next(iter(record.parameters.values()), None)
    return (None, None, None) if first is None else (first.norm, first.gradient_norm, first.ratio)


def diagnose(
    model: Model, x: Any, y: Any, sample_weight: Any = None, thresholds: Thresholds | None = None
) -> Diagnosis:
    """Measure every layer's activations and gradients in one training step that is not taken.

    The step is the compiled program's, as in `fit`: dropout drops and batch normalisation takes the batch's
    statistics. What to look for is in Glorot and Bengio 2010, sections 3 and 4: activations that saturate, and
    gradients whose size changes from layer to layer.

    Parameters
    ----------
    model : Sequential
        Compiled. Its weights, gradients, optimizer and running statistics stay as they are.
    x, y : array-like
        As for `fit`; all rows are one batch, and all their activations are kept, so some hundred are enough.
    sample_weight : array-like, (rows,), optional
        A weight for each row.
    thresholds : Thresholds, optional
        When there is a warning.

    Returns
    -------
    Diagnosis
        Its warnings name vanishing and exploding gradients, dead and saturated layers (but no outputs whose loss is
        computed from the logits, since its gradient does not pass the activation), and where NaN or infinity is.

    Raises
    ------
    ValueError, TypeError
        For data that `fit` refuses.
    RuntimeError
        If the model is not compiled.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((3,)), *(Dense(8, "sigmoid") for _ in range(12)), Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.linspace(-1, 1, 60).reshape(20, 3)
    >>> model.diagnose(x, x[:, :1]).warnings[0][:19]
    'vanishing gradients'
    """
    limits = Thresholds() if thresholds is None else thresholds
    if not isinstance(limits, Thresholds):
        raise TypeError(f"diagnose: thresholds must be a Thresholds, got {type(limits).__name__}")
    state = model.train_state
    objective, _ = state.objective()
    # Outputs whose loss takes the logits are activated only where a metric reads them.
    objective = dataclasses.replace(objective, metrics=(SQUARED_ERROR,) if objective.fused else ())
    data, network = state.data(x, y, sample_weight), state.network
    vectors = aligned_zeros((1, network.params.size), network.dtype)  # the model's own gradients stay
    workspace = backends.current().workspace(network, objective, data.rows, vectors)
    loss, gradient = loss_and_gradient(workspace, data, state.seed)
    gradients = None if gradient is None else network.tensors(gradient)
    with np.errstate(all="ignore"):  # a NaN is what may have to be reported
        records = [_record(network, row, workspace, data.rows, gradients, limits.margin) for row in network.layers]
        return Diagnosis(loss, records, _warnings(network, records, limits, objective.fused))


def _record(
    network: Network,
    row: Any,
    workspace: Workspace,
    rows: int,
    gradients: dict[str, npt.NDArray[Any]] | None,
    margin: float,
) -> LayerRecord:
    values = workspace.tensor(row, "output", rows)
    applied = network.activation_of(row)
    activation = applied.name
    ended = dead = None
    if activation in _DIES:
        dead = float((values == 0).all(axis=(0, 1)).mean())
    elif activation in _ENDS:
        low, high = _ENDS[activation]
        near = margin * (high - low)
        ended = float(((values < low + near) | (values > high - near)).mean())
    elif applied.rowwise:
        largest = values.max(axis=2) if applied.not_negative else np.exp(values.max(axis=2))
        ended = float((largest > 1.0 - margin).mean())
    learns = gradients is not None and not row["flags"] & IDLE
    return LayerRecord(
        name=network.names[int(row["number"])],
        kind=kind_of(row).title,
        activation=activation,
        shape=(values.shape[1], values.shape[2]),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        zeros=float((values == 0).mean()),
        dead=dead,
        saturated=ended,
        finite=bool(np.isfinite(values).all()),
        delta_norm=_norm(workspace.tensor(row, "output", rows, deltas=True)) if learns else None,
        parameters=_parameter_records(network, row, gradients),
    )


def _parameter_records(
    network: Network, row: Any, gradients: dict[str, npt.NDArray[Any]] | None
) -> dict[str, ParameterRecord]:
    offsets = kind_of(row).offsets(row).values()
    records = {}
    for parameter, segment in zip(network.parameters, network.segments, strict=True):
        if parameter.offset in offsets:
            norm, gradient = _norm(network.tensor(parameter)), None
            if gradients is not None and segment["trainable"]:
                gradient = _norm(gradients[parameter.name])
            ratio = gradient / norm if gradient is not None and norm > 0 else None
            records[parameter.name] = ParameterRecord(norm, gradient, ratio)
    return records


def _norm(values: npt.NDArray[Any]) -> float:
    """Return a norm in float64, where the squares of float32's smallest and largest numbers have room."""
    return float(np.sqrt(np.square(values, dtype=np.float64).sum()))


def _warnings(network: Network, records: list[LayerRecord], limits: Thresholds, fused: bool) -> list[str]:
    warnings = _not_finite(network, records)
    flow = [r for r in records if r.kind == "dense" and r.delta_norm is not None and np.isfinite(r.delta_norm)]
    if len(flow) > 1 and flow[-1].delta_norm:
        first, last = flow[0], flow[-1]
        assert first.delta_norm is not None and last.delta_norm is not None
        ratio = first.delta_norm / last.delta_norm
        way = (
            f"the norm of the deltas goes from {last.delta_norm:.2g} in layer {last.name!r} back to "
            f"{first.delta_norm:.2g} in layer {first.name!r}, {ratio:.2g} times"
        )
        if ratio <= limits.vanishing:
            warnings.append(f"vanishing gradients: {way}; try relu, he_normal, normalisation or Residual blocks")
        elif ratio >= limits.exploding:
            warnings.append(f"exploding gradients: {way}; try smaller initial weights, normalisation or clipnorm")
    for number, r in enumerate(records):
        if r.dead is not None and r.dead >= limits.dead:
            warnings.append(
                f"dead units: {round(r.dead * r.shape[1])} of {r.shape[1]} units of layer {r.name!r} ({r.activation}) "
                "are 0 for every row; try a smaller learning_rate, he_normal or leaky_relu"
            )
        passes = not (fused and number == len(records) - 1)
        if r.saturated is not None and r.saturated >= limits.saturated and passes:
            warnings.append(
                f"saturated: {r.saturated:.0%} of the outputs of layer {r.name!r} ({r.activation}) are at its ends, "
                "where it has no slope; try smaller weights, scaled inputs or normalisation"
            )
    return warnings


def _not_finite(network: Network, records: list[LayerRecord]) -> list[str]:
    """Name every parameter with NaN or infinity, and the first such layer in the order of each pass."""
    warnings = []
    for name, view in network.tensors().items():
        bad = view.size - int(np.isfinite(view).sum())
        if bad:
            warnings.append(f"not finite: {bad} of {view.size} numbers in {name!r} are NaN or infinite")
    first = next((r.name for r in records if not r.finite), None)
    if first is not None:
        warnings.append(f"not finite: the outputs of layer {first!r} are the first that hold NaN or infinity")
    for r in reversed(records):
        norms = [r.delta_norm, *(p.gradient_norm for p in r.parameters.values())]
        if any(norm is not None and not np.isfinite(norm) for norm in norms):
            warnings.append(f"not finite: going back, the gradients of layer {r.name!r} are the first that hold NaN")
            break
    return warnings
