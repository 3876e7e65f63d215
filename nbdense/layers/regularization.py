"""Dropout and penalties on activities: layers that no quantized network and no ONNX file has a trace of."""

from __future__ import annotations

from typing import Any

from nbdense import regularizers
from nbdense.engine.rows import ACTIVITY, DROPOUT
from nbdense.layers.base import Layer
from nbdense.layers.registry import register
from nbdense.network.builder import NetworkBuilder


@register
class Dropout(Layer):
    """In training, zeros for a random share of the elements, and the others times 1 / (1 - rate).

    Srivastava et al. 2014, section 10 ("inverted"). Which elements is a function of the model's seed, the step, the
    layer and the element: the same with any number of threads, and after a stop and resume.

    Parameters
    ----------
    rate : float
        The share, in [0, 1).
    noise_shape : None
        Accepted for Keras's sake.
    seed : int, optional
        Accepted for Keras's sake; the model's seed decides.
    name : str, optional
        Unique within a model.
    trainable : bool
        Accepted for Keras's sake: there is nothing to learn.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    """

    kind = "dropout"
    only_trains = True

    def __init__(
        self,
        rate: float,
        noise_shape: None = None,
        seed: int | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, trainable, dtype)
        del seed
        if noise_shape is not None:
            raise ValueError("Dropout: noise_shape is not supported")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
            raise ValueError(f"Dropout: rate must be in [0, 1), got {rate!r}; 1 would leave nothing")
        self.rate = float(rate)

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        if self.rate:
            builder.row(DROPOUT, self.name, rate=self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, **super().get_config()}


@register
class ActivityRegularization(Layer):
    """A penalty on what passes through, which is unchanged: (l1 sum |a| + l2 sum a^2) / the batch's rows.

    Where a model is trained or evaluated its loss has the penalty added.

    Parameters
    ----------
    l1, l2 : float
        Factors; at least 0.
    name : str, optional
        Unique within a model.
    trainable : bool
        Accepted for Keras's sake: there is nothing to learn.
    dtype : {"float32", "float64"}, optional
        As the model's, which it is by default.
    """

    kind = "activity_regularization"
    only_trains = True

    def __init__(
        self, l1: float = 0.0, l2: float = 0.0, name: str | None = None, trainable: bool = True, dtype: Any = None
    ) -> None:
        super().__init__(name, trainable, dtype)
        self.activity_regularizer = regularizers.L1L2(l1, l2)
        self.l1, self.l2 = self.activity_regularizer.l1, self.activity_regularizer.l2

    def write(self, builder: NetworkBuilder, seed: int, number: int) -> None:
        penalise_activity(builder, self.name, self.activity_regularizer)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2, **super().get_config()}


def penalise_activity(builder: NetworkBuilder, name: str, regularizer: regularizers.Regularizer | None) -> None:
    """Add a row that penalises the builder's current output, where a regularizer has a factor for it.

    Parameters
    ----------
    builder : NetworkBuilder
        The network.
    name : str
        The name of the layer.
    regularizer : Regularizer or None
        Its factors.
    """
    if regularizer is not None and (regularizer.l1 or regularizer.l2):
        builder.row(ACTIVITY, name, l1=regularizer.l1, l2=regularizer.l2)
