"""`MLPClassifier`: labels, their encoding, and what is predicted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense._checks import plain
from nbdense.estimators.base import BaseMLP
from nbdense.estimators.progress import Floats
from nbdense.losses import Loss
from nbdense.training.targets import weights_by_class

# After base, which says what to install where there is none
from sklearn.base import ClassifierMixin  # isort: skip
from sklearn.metrics import accuracy_score  # isort: skip
from sklearn.utils import column_or_1d  # isort: skip
from sklearn.utils.multiclass import check_classification_targets, type_of_target  # isort: skip


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron that classifies: scikit-learn's, trained by nbdense.

    It minimises the cross-entropy of labels of any type. Two classes share one sigmoid output, more have a softmax, and
    where ``y`` is a matrix of 0 and 1 (several labels a row) each label has its own, and the loss is the sum of theirs.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; none of them for logistic regression.
    activation : str
        Activation of hidden layers: "identity", "logistic", "tanh", "relu", or any in `nbdense.activations.ACTIVATIONS`
        but softmax.
    solver : {"adam", "sgd"}
        There is no "lbfgs".
    alpha : float
        L2 penalty: alpha / 2 times the squared weights, over the batch's size, is added to the loss.
    batch_size : int or "auto"
        Rows a step; auto is 200, or as many as there are.
    learning_rate : {"constant", "invscaling", "adaptive"}
        Course of sgd's rate: invscaling divides by the ``power_t``-th power of the rows seen; adaptive divides by 5
        where it would stop, down to 1e-6.
    learning_rate_init : float
        Step size.
    power_t : float
        See ``learning_rate``.
    max_iter : int
        Epochs, at most.
    shuffle : bool
        A new order of rows each epoch.
    random_state : int, RandomState or None
        Seed of initial weights, the order of rows and what is held out.
    tol : float
        The least change that counts as an improvement.
    verbose : bool
        Whether each epoch prints its loss.
    warm_start : bool
        Whether fit goes on from the weights there are; ``y`` must have the same classes then.
    momentum : float
        Momentum of sgd, in [0, 1).
    nesterovs_momentum : bool
        Whether sgd's momentum is Nesterov's.
    early_stopping : bool
        Whether to hold rows out, stop when their score (accuracy) has stopped improving, and keep the best weights.
        Without it the loss is what has to improve.
    validation_fraction : float
        The share of rows held out, with the classes' shares alike where a row has one.
    beta_1, beta_2, epsilon : float
        Adam's decay rates, and what is added to its denominator.
    n_iter_no_change : int
        More epochs than these without an improvement end the fit.
    class_weight : mapping of label to float, "balanced" or None
        A weight for each class, 1 where a mapping has none; balanced makes all classes of a fit weigh alike, a row
        counted as often as its sample weight says.
    dtype : {"float32", "float64"}
        Type of weights and computation.

    Attributes
    ----------
    classes_ : ndarray, (classes,)
        The labels, sorted; of several labels a row, the columns' numbers. There may be one only, as in scikit-learn.
    model_ : Sequential
        The network.
    coefs_, intercepts_ : list of ndarray
        Copies of its weights, (n_in, units), and biases, (units,).
    loss_, best_loss_ : float
        Loss of the last epoch, and the least of all; early stopping has no best loss.
    loss_curve_ : list of float
        Losses of all epochs; each with the penalty.
    validation_scores_, best_validation_score_ : list of float, float
        Scores on the rows held out; None without early stopping.
    n_iter_, t_ : int
        Epochs of the last fit; rows seen by all.
    n_features_in_, n_layers_, n_outputs_ : int
        Columns, layers with input and output, and the output's units.
    feature_names_in_ : ndarray of str
        The columns' names, where ``X`` had some.
    out_activation_ : str
        The output's.

    Raises
    ------
    ValueError, TypeError
        By ``fit``, for a parameter or data that will not do.
    FloatingPointError
        By ``fit``, if the loss is not finite before any step: scale ``X``.

    Warns
    -----
    ConvergenceWarning
        By ``fit``, after ``max_iter`` epochs, or where a loss that is not finite ends it; the last good weights are
        kept.

    Examples
    --------
    >>> from nbdense.estimators import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier((32,), learning_rate_init=0.01, batch_size=32, max_iter=50, tol=0.02, random_state=0)
    >>> bool(make_pipeline(StandardScaler(), mlp).fit(X, y).score(X, y) > 0.95)
    True
    """

    classes_: npt.NDArray[Any]
    _target: str

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        class_weight: Mapping[Any, float] | str | None = None,
        dtype: str = "float32",
    ) -> None:
        self._keep(locals())

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these rows, from where the last call left off.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As for `fit`.
        classes : array-like, (classes,), optional
            All labels that will ever come; the first call needs them.
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                "partial_fit does not support class_weight='balanced': it does not see all rows; give a mapping, for "
                "example from sklearn.utils.compute_class_weight"
            )
        if not hasattr(self, "model_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._awaited = np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes must be those of the first call, {self.classes_}, got {np.unique(classes)}")
        try:
            return self._fit(X, y, sample_weight, incremental=True)
        finally:
            self.__dict__.pop("_awaited", None)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like, (rows, columns)
            Numbers.

        Returns
        -------
        ndarray, (rows,), of the labels' dtype; or (rows, labels) of 0 and 1
        """
        return self._answers(self._outputs(X))

    def predict_proba(self, X: Any) -> Floats:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like, (rows, columns)
            Numbers.

        Returns
        -------
        ndarray, (rows, classes)
            In the order of ``classes_``; behind a single class's, as in scikit-learn, that of there being another.
        """
        outputs = self._outputs(X)
        return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs

    def predict_log_proba(self, X: Any) -> Floats:
        """Predict the logarithms of `predict_proba`'s probabilities; of a probability of 0, -inf."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    @property
    def _multilabel(self) -> bool:
        """Tell whether rows have several labels each."""
        return bool(self._target == "multilabel-indicator")

    def _encode(self, y: Any, fresh: bool) -> npt.NDArray[Any]:
        y = y.toarray() if hasattr(y, "toarray") else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        target = "multilabel-indicator" if y.ndim == 2 else "classes"
        if y.ndim == 2 and (type_of_target(y) != target or not np.isin(y, (0, 1)).all()):
            raise ValueError("y: rows of several labels must be 0 and 1, a column for each label")
        if not fresh and target != self._target:
            raise ValueError(f"y must stay {self._target} while the fit goes on, got {target}")
        here = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)
        if fresh:
            self.classes_, self._target = self.__dict__.get("_awaited", here), target
        if not np.isin(here, self.classes_).all():
            raise ValueError(f"y has classes {here}, but the fit is on those of `self.classes_`, {self.classes_}")
        if self.warm_start and len(here) < len(self.classes_):
            raise ValueError(
                f"y has classes {here}, but with warm_start it must have all of `self.classes_`, {self.classes_}; "
                "partial_fit without warm_start goes on with some of them"
            )
        return y.astype(np.uint8) if y.ndim == 2 else np.searchsorted(self.classes_, y)

    def _objective(self) -> tuple[str | Loss, float, str, int]:
        units = len(self.classes_)
        if self._multilabel:
            return "binary_crossentropy", float(units), "sigmoid", units  # their sum, where Keras takes the mean
        if units <= 2:
            return "binary_crossentropy", 1.0, "sigmoid", 1
        return "sparse_categorical_crossentropy", 1.0, "softmax", units

    def _class_weights(self, targets: npt.NDArray[Any], weights: Floats | None) -> Floats | None:
        if self.class_weight is None:
            return None
        if self._multilabel:
            raise ValueError("class_weight: rows have several labels each here; give fit a sample_weight")
        labels = self.classes_.tolist()
        if isinstance(self.class_weight, Mapping) and not all(label in self.class_weight for label in labels):
            strangers = [plain(label) for label in self.class_weight if label not in labels]
            if strangers:  # as in scikit-learn: another key was meant
                raise ValueError(f"class_weight: {strangers[0]!r} is none of the classes, which are {self.classes_}")
        return weights_by_class(self.class_weight, labels, targets, weights)

    def _numbers(self, outputs: Floats) -> npt.NDArray[np.intp]:
        """Return the classes' numbers, (rows,); or 0 and 1, (rows, labels)."""
        if self._multilabel:
            return (outputs > 0.5).astype(np.intp)
        numbers = outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0.5).astype(np.intp)
        return np.minimum(numbers, len(self.classes_) - 1)  # a single class is all that there is

    def _answers(self, outputs: Floats) -> npt.NDArray[Any]:
        numbers = self._numbers(outputs)
        return numbers if self._multilabel else self.classes_[numbers]

    def _encode_one(self, y: Any) -> Any:
        if self._multilabel:
            return y
        number = int(np.searchsorted(self.classes_, y))
        if number == len(self.classes_) or self.classes_[number] != y:
            raise ValueError(f"y: {plain(y)!r} is none of the classes, which are {self.classes_}")
        return number

    def _held_out_score(self, outputs: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> float:
        return float(accuracy_score(targets, self._numbers(outputs), sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
