"""Batch normalisation: the layer, and how rows of it, by their running statistics, are written to and read from ONNX.

BatchNormalization has its channels on axis 1, ours are the last: with more axes it is Mul and Add, by
scale = gamma / sqrt(variance + epsilon) and shift = beta - mean scale, computed in float64. Both lose digits where a
mean is many deviations away from zero (data that nobody scaled): runtimes fold BatchNormalization too, and
x scale + shift cancels. There it is Sub, Mul and Add, which lose none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import initializers
from nbdense._checks import finite_float32, finite_number
from nbdense.engine.rows import BATCH_NORM, FROZEN_NORM
from nbdense.layers.base import Shape, refuse
from nbdense.layers.forms import (
    Array,
    CSource,
    ForeignLayer,
    OnnxCall,
    OnnxGraph,
    RowForm,
    Settings,
    Tensors,
    register_form,
    tensors_of,
)
from nbdense.layers.normalization import Normalization
from nbdense.layers.registry import register
from nbdense.layers.weights import Weight
from nbdense.network import Row, folding
from nbdense.network.builder import NetworkBuilder

_OPERATOR = "BatchNormalization"
_ONE_LESS = 2.0**-10  # an epsilon that adds up to exactly 1 with its complement, in float32 too


@register
class BatchNormalization(Normalization):
    """Every column standardised over batch and positions, then gamma times it plus beta.

    Ioffe and Szegedy 2015, algorithms 1 and 2. Outside training, and where ``trainable`` is false, running
    statistics take the place of the batch's, as in Keras.

    Parameters
    ----------
    axis : int
        The last: -1, or its number, the batch's being 0.
    momentum : float
        Of the running statistics, in [0, 1].
    epsilon : float
        Added to the (biased) variance.
    center, scale : bool
        Whether there are a beta and a gamma.
    beta_initializer, gamma_initializer : str or Initializer
        See `nbdense.initializers`.
    moving_mean_initializer, moving_variance_initializer : str or Initializer
        See `nbdense.initializers`.
    name : str, optional
        Unique within a model.
    trainable : bool
        Whether gamma and beta learn.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
        See `nbdense.regularizers`.
    beta_constraint, gamma_constraint : str or Constraint, optional
        See `nbdense.constraints`.
    synchronized, renorm : False
        Keras's arguments that are not supported, refused by name.
    """

    kind = "batch_normalization"
    untrained = ("moving_mean", "moving_variance")

    def __init__(
        self,
        axis: Any = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        synchronized: bool = False,
        renorm: bool = False,
    ) -> None:
        refuse("BatchNormalization", "synchronized", synchronized, "a model is trained in one process")
        refuse("BatchNormalization", "renorm", renorm, "take larger batches")
        super().__init__(axis, epsilon, center, scale, beta_initializer, gamma_initializer, name, trainable, dtype)
        self.set_options(beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint)
        self.momentum = finite_number("BatchNormalization", "momentum", momentum, 0, 1)
        self.moving_mean_initializer = initializers.for_layer(moving_mean_initializer)
        self.moving_variance_initializer = initializers.for_layer(moving_variance_initializer)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        gamma, beta = self.gamma_and_beta(builder, seed, number)
        running = [
            builder.parameter(
                f"{self.name}/moving_{statistic}",
                make.draw((builder.n,), initializers.generator(seed, 2 * number)),
                trainable=False,
            )
            for statistic, make in (
                ("mean", self.moving_mean_initializer),
                ("variance", self.moving_variance_initializer),
            )
        ]
        builder.row(
            BATCH_NORM if self.trainable else FROZEN_NORM,
            self.name,
            gamma=gamma,
            beta=beta,
            mean=running[0],
            variance=running[1],
            momentum=self.momentum,
            epsilon=self.epsilon,
        )

    @property
    def moving_mean(self) -> Weight | None:
        """Running mean of each column, once it is built."""
        return self._weight("moving_mean")

    @property
    def moving_variance(self) -> Weight | None:
        """Running variance of each column, once it is built."""
        return self._weight("moving_variance")

    def parameters_for(self, shape: Shape) -> int:
        return super().parameters_for(shape) + 2 * shape[-1]

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"momentum": self.momentum}
        for field in ("moving_mean_initializer", "moving_variance_initializer"):
            config[field] = initializers.serialize(getattr(self, field))
        return config | super().get_config()


# -- writing ---------------------------------------------------------------------------------------------------------


def finite_tensors(row: Row) -> dict[str, npt.NDArray[np.floating]]:
    """Return gamma, beta, mean and variance of a row, ones and zeros where it has none, if files can have them.

    Parameters
    ----------
    row : Row
        Of kind FROZEN_NORM.

    Raises
    ------
    ValueError
        If one is not finite in float32, or a variance is not above zero, epsilon included.
    """
    tensors = folding.norm_tensors(row)
    for name, value in tensors.items():
        finite_float32(value, row.label, name)
    if (tensors["variance"].astype(np.float64) + row.settings["epsilon"] <= 0).any():
        raise ValueError(f"{row.label}: its moving variance plus epsilon is not above zero")
    return tensors


def _write_onnx(graph: OnnxGraph, row: Row, prefix: str, inputs: Sequence[str], target: str) -> None:
    tensors, epsilon = finite_tensors(row), row.settings["epsilon"]
    far = folding.is_far_from_zero(tensors["mean"], tensors["variance"], epsilon)
    if row.positions == 1 and not far:
        constants = [graph.constant(f"{prefix}/{name}", value, np.float32) for name, value in tensors.items()]
        graph.node(_OPERATOR, [*inputs, *constants], target, epsilon=epsilon)
        return
    scale, shift = folding.scale_and_shift(**tensors, epsilon=epsilon)
    parts = {"scale": scale, "shift": tensors["beta"] if far else shift, **({"mean": tensors["mean"]} if far else {})}
    names = {
        name: graph.constant(
            f"{prefix}/{name}", graph.along_columns(finite_float32(value, row.label, name)), np.float32
        )
        for name, value in parts.items()
    }
    (source,) = inputs
    if far:
        source = graph.node("Sub", [source, names["mean"]], f"{prefix}/centred")
    graph.node("Add", [graph.node("Mul", [source, names["scale"]], f"{prefix}/scaled"), names["shift"]], target)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_operator(call: OnnxCall) -> Any:
    value = call.data()
    if call.attributes.get("training_mode", 0) or call.uses_more:
        raise call.fail("it is in training mode: export the model for inference")
    if len(value.seen) != 1:
        raise call.fail(f"its input must have rows of one axis, the channels, got shape {value.shape}")
    arrays = call.constants(("scale", "bias", "mean", "variance"))
    if any(array.shape != value.seen or array.dtype.kind != "f" for array in arrays):
        raise call.fail(f"scale, bias, mean and variance must have {value.seen[0]} elements each")
    epsilon, momentum = float(call.attributes.get("epsilon", 1e-5)), float(call.attributes.get("momentum", 0.9))
    if not (arrays[3].astype(np.float64) + epsilon > 0).all() or epsilon < 0:
        raise call.fail("its variance plus epsilon is not above zero everywhere")
    tensors = dict(zip(("gamma", "beta", "mean", "variance"), arrays, strict=True))
    return call.layer(FORM, tensors, {"epsilon": epsilon, "momentum": momentum})


def _read_torch(layer: ForeignLayer) -> tuple[Tensors, Settings]:
    layer.check_axis(1)  # the channels
    if layer.setting("running_mean") is None:
        raise layer.fail("it has no running statistics (track_running_stats=False), by which a model predicts")
    momentum = layer.setting("momentum")  # None: the mean of all batches so far, which has no number here
    settings = {"epsilon": float(layer.setting("eps")), "momentum": 0.99 if momentum is None else 1 - float(momentum)}
    return tensors_of(layer, gamma="weight", beta="bias", mean="running_mean", variance="running_var"), settings


def _read_keras(layer: ForeignLayer) -> tuple[Tensors, Settings]:
    layer.check_axis(layer.setting("axis"))
    learns = {"momentum": float(layer.setting("momentum"))} if layer.setting("trainable") else {}
    tensors = tensors_of(layer, gamma="gamma", beta="beta", mean="moving_mean", variance="moving_variance")
    return tensors, {"epsilon": float(layer.setting("epsilon")), **learns}


def _affine(tensors: Tensors, settings: Settings) -> tuple[Array, Array, Array] | None:
    if settings["epsilon"] != 0:
        return None
    scale = tensors["gamma"] / np.sqrt(tensors["variance"].astype(np.float64))
    return tensors["mean"], scale, tensors["beta"]


def affine_parts(mean: Array, scale: Array, shift: Array) -> tuple[dict[str, Array], dict[str, float]]:
    """Return tensors and settings of a normalisation that is (x - mean) scale + shift, and does not learn.

    Parameters
    ----------
    mean, scale, shift : ndarray, (n,)
        Of the columns.
    """
    variance = np.full(len(scale), 1.0 - _ONE_LESS)
    return {"gamma": scale, "beta": shift, "mean": mean, "variance": variance}, {"epsilon": _ONE_LESS}


def _layer(tensors: Tensors, settings: Settings, name: str | None) -> tuple[Any, dict[str, Array]]:
    """Make the layer; one without a momentum does not learn."""
    known = {"mean": "moving_mean", "variance": "moving_variance"}
    learns = {"momentum": settings["momentum"]} if "momentum" in settings else {"trainable": False}
    has = {"center": "beta" in tensors, "scale": "gamma" in tensors}
    layer = BatchNormalization(epsilon=settings["epsilon"], name=name, **has, **learns)
    return layer, {known.get(tensor, tensor): value for tensor, value in tensors.items()}


def _write_c(source: CSource, row: Row, label: str) -> tuple[str, list[str]]:
    tensors = {name: np.asarray(value, np.float64) for name, value in folding.norm_tensors(row).items()}
    scale = tensors["gamma"] / np.sqrt(tensors["variance"] + row.settings["epsilon"])
    arrays = {"mean": tensors["mean"], "scale": scale, "shift": tensors["beta"]}
    return "float_scale", [
        source.array("float", f"{name}_{label}", value.astype(np.float32)) for name, value in arrays.items()
    ]


FORM = register_form(
    RowForm(
        FROZEN_NORM,
        "batch_norm",
        tensors=("gamma?", "beta?", "mean", "variance"),
        setting="epsilon",
        write_onnx=_write_onnx,
        write_c=_write_c,
        operators={_OPERATOR: _read_operator},
        affine=_affine,
        modules={"torch.BatchNorm1d": _read_torch, "keras.BatchNormalization": _read_keras},
        layer=_layer,
    )
)
