"""Losses of counts, labels and class probabilities.

One that fuses with the last layer's activation is computed from what enters that activation, exactly and without
overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbdense._checks import finite_number
from nbdense.activations import ACTIVATIONS
from nbdense.engine.elementwise.loss_forms import FORMS
from nbdense.losses import functions
from nbdense.losses.base import NOT_NEGATIVE, Chosen, NamedLoss

_PROBABILITIES = ("softmax", "sigmoid", "hard_sigmoid")  # activations whose outputs may be taken for these


class Poisson(NamedLoss):
    """Mean over the columns of y - target log(y + 1e-7); targets are counts, or other numbers of at least 0.

    Outputs are rates, at least 0: let the last layer be a softplus, for example.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "poisson"
    function: ClassVar[Callable[..., Any]] = functions.poisson
    suited: ClassVar[tuple[str, ...]] = NOT_NEGATIVE
    advice: ClassVar[str] = "it takes the outputs' logarithm, and they may be negative; end with 'softplus'"


class KLDivergence(NamedLoss):
    """Sum over the columns of target log(target / y), both clipped to [1e-7, 1]; targets are class probabilities.

    Where y is clipped its derivative is 0.

    Parameters
    ----------
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "kl_divergence"
    function: ClassVar[Callable[..., Any]] = functions.kl_divergence
    suited: ClassVar[tuple[str, ...]] = NOT_NEGATIVE
    advice: ClassVar[str] = "it takes outputs for probabilities, and clips others to [1e-7, 1]; end with 'softmax'"


class _Crossentropy(NamedLoss):
    wanted: ClassVar[str] = ""  # the activation that it fuses with
    fields: ClassVar[tuple[str, ...]] = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        if not isinstance(from_logits, bool | np.bool_):
            raise ValueError(f"{self.name}: from_logits must be True or False, got {from_logits!r}")
        self.from_logits = from_logits
        self.label_smoothing = finite_number(self.name, "label_smoothing", label_smoothing, 0.0, 1.0)
        self.axis = axis

    def _matched(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        return y_true, y_pred  # the functions say what does not match

    @property
    def decision_threshold(self) -> float:
        return 0.0 if self.from_logits else super().decision_threshold

    def advice_after(self, activation: str) -> str:
        if self.from_logits and activation in ("softmax", "sigmoid"):
            return "from_logits=True takes these probabilities for logits; leave it out, or end with 'linear'"
        if not self.from_logits and activation in ACTIVATIONS and activation not in NOT_NEGATIVE:
            return f"outputs are taken for probabilities; end with {self.wanted!r}, or say from_logits=True"
        return ""


class BinaryCrossentropy(_Crossentropy):
    """-(t log p + (1 - t) log(1 - p)), mean over the columns; targets in [0, 1].

    After a sigmoid layer, or with ``from_logits``, a model trains with what is computed from the logits: the true
    value, where Keras (and a call) clips probabilities to [1e-7, 1 - 1e-7], and so never tells of more than about 16.1.

    Parameters
    ----------
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is moved to 0.5.
    axis : int
        That of the columns; a model trains with -1.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "binary_crossentropy"
    function: ClassVar[Callable[..., Any]] = functions.binary_crossentropy
    wanted: ClassVar[str] = "sigmoid"

    def compiled_form(self, activation: str) -> Chosen:
        fused = activation == "sigmoid" and not self.from_logits
        logits = self.from_logits or fused
        form = FORMS["binary_crossentropy_from_logits" if logits else "binary_crossentropy"]
        return form, fused, self.label_smoothing


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """`BinaryCrossentropy` whose columns weigh (1 - q)^gamma, q the probability of what is true: easy rows count less.

    Lin et al. 2017, "Focal loss for dense object detection", section 3.

    Parameters
    ----------
    apply_class_balancing : bool
        Whether columns weigh alpha for a target of 1 and 1 - alpha for one of 0, too.
    alpha : float
        This weight.
    gamma : float
        How much easy rows are discounted; 0 is the plain cross-entropy.
    from_logits : bool
        Whether the model puts out logits; they become probabilities, which are clipped as the others.
    label_smoothing : float
        In [0, 1]: this share of each target is moved to 0.5.
    axis : int
        That of the columns; a model trains with -1.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "binary_focal_crossentropy"
    function: ClassVar[Callable[..., Any]] = functions.binary_focal_crossentropy
    fields: ClassVar[tuple[str, ...]] = (*_Crossentropy.fields, "apply_class_balancing", "alpha", "gamma")

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma

    def compiled_form(self, activation: str) -> Chosen:
        return NamedLoss.compiled_form(self, activation)


class CategoricalCrossentropy(_Crossentropy):
    """-sum t log p; targets are rows of class probabilities (one-hot).

    After a softmax layer, or with ``from_logits``, a model trains with what is computed from the logits by log-sum-exp:
    the true value, where Keras (and a call) clips at about 16.1. After any other activation outputs are normalised and
    clipped as Keras does; but a row of zeros, of which Keras makes NaN, is clipped to 1e-7 each: a loss of about 16.1,
    and no gradient.

    Parameters
    ----------
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    axis : int
        That of the classes; a model trains with -1.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "categorical_crossentropy"
    function: ClassVar[Callable[..., Any]] = functions.categorical_crossentropy
    wanted: ClassVar[str] = "softmax"

    def compiled_form(self, activation: str) -> Chosen:
        if self.from_logits:
            return FORMS["softmax_crossentropy_of_outputs"], False, self.label_smoothing
        fused = activation == "softmax"
        return FORMS["softmax_crossentropy" if fused else "categorical_crossentropy"], fused, self.label_smoothing


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """-alpha sum (1 - p)^gamma t log p, of outputs that are normalised and clipped: easy rows count less.

    Lin et al. 2017, "Focal loss for dense object detection", section 3.

    Parameters
    ----------
    alpha : float
        A factor on all.
    gamma : float
        How much easy rows are discounted; 0 is alpha times the plain cross-entropy.
    from_logits : bool
        Whether the model puts out logits; they become probabilities, which are clipped as the others.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes.
    axis : int
        That of the classes; a model trains with -1.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "categorical_focal_crossentropy"
    function: ClassVar[Callable[..., Any]] = functions.categorical_focal_crossentropy
    fields: ClassVar[tuple[str, ...]] = (*_Crossentropy.fields, "alpha", "gamma")

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.alpha, self.gamma = alpha, gamma

    def compiled_form(self, activation: str) -> Chosen:
        return NamedLoss.compiled_form(self, activation)


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """`CategoricalCrossentropy` with class numbers 0..n-1 for targets.

    Parameters
    ----------
    from_logits : bool
        Whether the model puts out logits instead of probabilities.
    ignore_class : int, optional
        A number that stands for no class: such rows are left out of a call. A model trains without.
    reduction : str or None
        See `Loss`.
    axis : int
        That of the classes; the last.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    label_smoothing : float
        In [0, 1]: this share of each target is spread evenly over the classes. Keras has it for one-hot targets only.
    """

    kind: ClassVar[str] = "sparse_categorical_crossentropy"
    function: ClassVar[Callable[..., Any]] = functions.sparse_categorical_crossentropy
    sparse: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ("from_logits", "ignore_class", "axis", "label_smoothing")

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
        dtype: Any = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.ignore_class = ignore_class

    def mask(self, y_true: Any, y_pred: Any) -> npt.NDArray[np.bool_] | None:
        if self.ignore_class is None:
            return None
        labels = y_true[..., 0] if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
        return np.asarray(labels != self.ignore_class)

    def check_trainable(self) -> None:
        if self.ignore_class is not None:
            raise ValueError(
                f"compile: {self.name} has ignore_class={self.ignore_class!r}, which is for calls; leave such rows "
                "out, or give them class 0 and a sample_weight of 0"
            )
        super().check_trainable()


class CategoricalGeneralizedCrossEntropy(NamedLoss):
    """(1 - p^q) / q, p the right class's probability: robust against wrong labels; targets are class numbers.

    Zhang and Sabuncu 2018, "Generalized cross entropy loss for training deep neural networks with noisy labels", eq. 6.

    Parameters
    ----------
    q : float
        Between 0, the cross-entropy, and 1, the mean absolute error.
    reduction : str or None
        See `Loss`.
    name : str, optional
        What it is called.
    dtype : {"float32", "float64"}, optional
        See `Loss`.
    """

    kind: ClassVar[str] = "categorical_generalized_cross_entropy"
    function: ClassVar[Callable[..., Any]] = functions.categorical_generalized_cross_entropy
    sparse: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ("q",)
    suited: ClassVar[tuple[str, ...]] = _PROBABILITIES
    advice: ClassVar[str] = "it takes outputs for probabilities; end with 'softmax'"

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.q = finite_number(self.name, "q", q, 0.0, 1.0, ends="()", expected="between 0 and 1")

    def _matched(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        return y_true, y_pred
