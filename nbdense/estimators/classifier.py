"""`MLPClassifier`: labels, their encoding, and what is predicted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbdense import losses
from nbdense._checks import plain
from nbdense.estimators.base import BaseMLP, Objective
from nbdense.estimators.calibration import temperature_of
from nbdense.estimators.networks import before_activation, is_trained, scale_output
from nbdense.estimators.parameters import got, is_lbfgs, is_loss, wanted_loss
from nbdense.estimators.rows import Floats, outputs_of
from nbdense.losses import CategoricalCrossentropy, CategoricalHinge, KLDivergence
from nbdense.losses.base import THRESHOLD
from nbdense.metrics.collected import predicted_classes
from nbdense.training.targets import balance_of, class_sizes, weights_by_class

# After base, which says what to install where there is none
from sklearn.base import ClassifierMixin  # isort: skip
from sklearn.metrics import accuracy_score  # isort: skip
from sklearn.utils import column_or_1d  # isort: skip
from sklearn.utils.metaestimators import available_if  # isort: skip
from sklearn.utils.multiclass import check_classification_targets, type_of_target  # isort: skip
from sklearn.utils.validation import check_is_fitted  # isort: skip

_OF_CLASSES = (CategoricalCrossentropy, CategoricalHinge, KLDivergence)  # losses of a unit for each class


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron that classifies: scikit-learn's, trained by nbdense.

    It minimises the cross-entropy of labels of any type. Two classes share one sigmoid output, more have a softmax, and
    where ``y`` is a matrix of 0 and 1 (several labels a row) each label has its own, and the loss is the sum of theirs.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer; none of them for logistic regression.
    activation : str, Activation, or a sequence of these
        Activation of hidden layers: "identity", "logistic", "tanh", "relu", any in `nbdense.activations.ACTIVATIONS`
        that is not of whole rows, or one of your own; a sequence has one for each layer.
    solver : str or Optimizer
        "adam", "sgd" or "lbfgs"; another of nbdense's optimizers by name, such as "adamw" or "lion", with
        ``learning_rate_init`` as its rate; or an Optimizer, which has its own rate or schedule.
    alpha : float
        L2 penalty: alpha / 2 times the squared weights, over the batch's size, is added to the loss.
    batch_size : int or "auto"
        Rows a step; auto is 200, or as many as there are. lbfgs takes all.
    learning_rate : {"constant", "invscaling", "adaptive"}
        Course of sgd's rate: invscaling divides by the ``power_t``-th power of the rows seen; adaptive divides by 5
        where it would stop, down to 1e-6.
    learning_rate_init : float or schedule
        Step size, or one of `nbdense.schedules`.
    power_t : float
        See ``learning_rate``.
    max_iter : int
        Epochs, at most; iterations of lbfgs.
    shuffle : bool
        A new order of rows each epoch.
    random_state : int, RandomState or None
        Seed of initial weights, the order of rows, what is held out and what dropout drops.
    tol : float
        The least change that counts as an improvement; of lbfgs, the largest slope with which it ends.
    verbose : bool
        Whether each epoch prints its loss.
    warm_start : bool
        Whether fit goes on from the weights there are; ``y`` must have the same classes then.
    momentum : float
        Momentum of sgd, in [0, 1].
    nesterovs_momentum : bool
        Whether sgd's momentum is Nesterov's.
    early_stopping : bool
        Whether to hold rows out, stop when their score (accuracy) has stopped improving, and keep the best weights.
        Without it the loss is what has to improve. `fit` and `partial_fit` take an ``eval_set`` in their place; lbfgs
        has no epochs to stop.
    validation_fraction : float
        The share of rows held out, with the classes' shares alike where a row has one.
    beta_1, beta_2, epsilon : float
        Adam's decay rates, and what is added to its denominator.
    n_iter_no_change : int
        More epochs than these without an improvement end the fit.
    max_fun : int
        Evaluations of the loss by lbfgs, at most.
    loss : str, Loss or callable
        "log_loss", the cross-entropy; another of nbdense's losses, by name or as an object, or a function of (y_true,
        y_pred), as `nbdense.Sequential.compile` takes it: of probabilities, and of rows of 0 and 1 or class numbers.
    class_weight : mapping of label to float, "balanced", list of these, or None
        A weight for each class, 1 where a mapping has none; balanced makes all classes of a fit weigh alike, a row
        counted as often as its sample weight says, and in partial_fit all that have come so far. Where rows have
        several labels, a list has a mapping of 0 and 1 for each, and a row's weight is the product over its labels.
    dropout : float or sequence of float
        The share of each hidden layer's outputs that is dropped in training; a sequence has one for each layer.
    batch_norm, layer_norm : bool
        Whether hidden layers are normalised before their activation, over the batch or over the layer's units.
    residual : bool
        Whether each hidden layer behind the first adds its input to what it makes of it.
    dtype : {"float32", "float64", "auto"}
        Type of weights and computation; auto is float32 where ``X`` is, and else float64, as in scikit-learn.

    Attributes
    ----------
    classes_ : ndarray, (classes,)
        The labels, sorted; of several labels a row, the columns' numbers. There may be one only, as in scikit-learn.
    model_ : Sequential
        The network.
    coefs_, intercepts_ : list of ndarray
        Copies of its weights, (n_in, units), and biases, (units,).
    loss_, best_loss_ : float
        Loss of the last epoch or iteration, and the least of all; early stopping has no best loss.
    loss_curve_ : list of float
        Losses of all epochs or iterations; each with the penalty.
    validation_scores_, best_validation_score_ : list of float, float
        Scores on the rows held out, or of the ``eval_set``; None without either.
    n_iter_, t_ : int
        Epochs or iterations of the last fit; rows seen by all epochs.
    converged_ : bool
        Whether the last fit ended by itself; with early stopping, whether partial_fit has stopped.
    n_features_in_, n_layers_, n_outputs_ : int
        Columns, layers with input and output, and the output's units.
    feature_names_in_ : ndarray of str
        The columns' names, where ``X`` had some.
    out_activation_ : str
        The output's.
    temperature_ : float
        What `calibrate` has divided the logits by.

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
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: Any = 0.001,
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
        max_fun: int = 15000,
        loss: Any = "log_loss",
        class_weight: Any = None,
        dropout: float | Sequence[float] = 0.0,
        batch_norm: bool = False,
        layer_norm: bool = False,
        residual: bool = False,
        dtype: str = "float32",
    ) -> None:
        self._keep(locals())

    @available_if(lambda estimator: not is_lbfgs(estimator))
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, *, eval_set: Any = None
    ) -> Self:
        """Train for one epoch on these rows, from where the last call left off.

        With ``early_stopping`` each call is judged by the ``eval_set``. Once the score has stopped improving,
        ``converged_`` is True, the best weights are in place, and further calls change nothing.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As for `fit`.
        classes : array-like, (classes,), optional
            All labels that will ever come; the first call needs them.
        eval_set : (X, y) or (X, y, sample_weight), optional
            As for `fit`; ``early_stopping`` needs it.
        """
        if not hasattr(self, "model_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._awaited = np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes must be those of the first call, {self.classes_}, got {np.unique(classes)}")
        try:
            return self._fit(X, y, sample_weight, eval_set, incremental=True)
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

    def decision_function(self, X: Any) -> Floats:
        """Return what the last layer makes probabilities of: logits.

        Parameters
        ----------
        X : array-like, (rows, columns)
            Numbers.

        Returns
        -------
        ndarray, (rows,) or (rows, classes)
            Of two classes, of the second against the first: above 0 where that is the likelier. Of a model without
            logits, such as a quantized one, those of its probabilities.
        """
        logits = self._logits(X)
        if self._multilabel or logits.shape[1] > 2 or len(self.classes_) > 2:
            return logits
        return logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0)

    def _logits(self, X: Any) -> Floats:
        """Return the outputs of the network before its last activation."""
        features = self._features(X)
        if is_trained(self.model_):
            return outputs_of(before_activation(self.model_), features)
        outputs = outputs_of(self.model_, features)
        with np.errstate(divide="ignore"):
            return np.log(outputs) - (np.log1p(-outputs) if self._objective().activation == "sigmoid" else 0)

    def calibrate(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Scale the probabilities by a temperature: that which makes the log loss of these rows least.

        The last layer's weights are divided by it, so that files and exports have it too; labels stay as they are.
        Method: Guo et al., "On calibration of modern neural networks" (2017), section 4.2.

        Parameters
        ----------
        X, y, sample_weight : array-like
            Rows as for `fit`, which it has not learnt from.

        Returns
        -------
        self
            With the temperature, from 0.01 to 100, in ``temperature_``.
        """
        check_is_fitted(self, "model_")
        model = self._learning_model()
        rows = self._checked(X, y, sample_weight, fresh=False)
        logits = outputs_of(before_activation(model), rows.X).astype(np.float64)
        temperature = temperature_of(logits, rows.targets, rows.weights)
        scale_output(model, 1.0 / temperature)
        self.temperature_ = temperature
        return self

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
            self.__dict__.pop("temperature_", None)
        if not np.isin(here, self.classes_).all():
            if not fresh and self.warm_start:
                raise self._other_classes(here)
            raise ValueError(f"y has classes {here}, but the fit is on those of `self.classes_`, {self.classes_}")
        return y.astype(np.uint8) if y.ndim == 2 else np.searchsorted(self.classes_, y)

    def _check_going_on(self, targets: npt.NDArray[Any]) -> None:
        here = self.classes_ if self._multilabel else self.classes_[np.unique(targets)]
        if self.warm_start and len(here) < len(self.classes_):
            raise self._other_classes(here)

    def _other_classes(self, here: npt.NDArray[Any]) -> ValueError:
        return ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously got "
            f"{self.classes_}, `y` has {here}; partial_fit without warm_start goes on with some of them"
        )

    def _objective(self) -> Objective:
        units = len(self.classes_)
        if not isinstance(self.loss, str) or self.loss != "log_loss":
            return self._own_objective(units)
        if self._multilabel:
            return Objective("binary_crossentropy", float(units), "sigmoid", units)  # where Keras takes the mean
        if units <= 2:
            return Objective("binary_crossentropy", 1.0, "sigmoid", 1)
        return Objective("sparse_categorical_crossentropy", 1.0, "softmax", units)

    def _own_objective(self, units: int) -> Objective:
        """Return the objective of another loss than the usual one: of a unit for each class where it is of classes."""
        loss = losses.for_training(self.loss)
        of_classes = loss.sparse or isinstance(loss, _OF_CLASSES)
        if self._multilabel:
            if of_classes:
                raise ValueError(f"MLPClassifier: loss {loss.name} is of one class a row, but rows have several labels")
            return Objective(loss, 1.0, "sigmoid", units)
        if units > 2 or of_classes:
            return Objective(loss, 1.0, "softmax", max(units, 2))
        return Objective(loss, 1.0, "sigmoid", 1)

    def _for_loss(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        loss, _, activation, units = self._objective()
        if activation != "softmax" or getattr(loss, "sparse", True):
            return targets
        return np.eye(units, dtype=np.uint8)[targets]

    def _check_parameters(self) -> list[int]:
        if not is_loss(self.loss, ("log_loss",)):
            raise ValueError(f"MLPClassifier: loss must be {wanted_loss(('log_loss',))}, got {got(self.loss)}")
        return super()._check_parameters()

    def _class_weights(self, targets: npt.NDArray[Any], weights: Floats | None, incremental: bool) -> Floats | None:
        if self.class_weight is None:
            self._sizes: list[npt.NDArray[np.float64]] = []
            return None
        labels = self.classes_.tolist()
        columns, settings = [targets], [self.class_weight]
        if self._multilabel:
            columns, labels, settings = list(targets.T), [0, 1], self._settings_of_labels()
        elif isinstance(self.class_weight, Mapping) and not all(label in self.class_weight for label in labels):
            strangers = [plain(label) for label in self.class_weight if label not in labels]
            if strangers:  # as in scikit-learn: another key was meant
                raise ValueError(f"class_weight: {strangers[0]!r} is none of the classes, which are {self.classes_}")
        known = self.__dict__.get("_sizes") if incremental else None
        self._sizes = []
        factors = np.ones(len(targets))
        for number, (column, setting) in enumerate(zip(columns, settings, strict=True)):
            if isinstance(setting, str) and setting == "balanced":
                sizes = class_sizes(len(labels), column, weights)
                self._sizes.append(sizes + known[number] if known else sizes)
                factors = factors * balance_of(self._sizes[-1])[column]
            else:
                factors = factors * weights_by_class(setting, labels, column, weights)
        return factors

    def _settings_of_labels(self) -> list[Any]:
        """Return the class weights of each label, where rows have several."""
        if self.class_weight == "balanced":
            return ["balanced"] * len(self.classes_)
        if not isinstance(self.class_weight, list | tuple) or len(self.class_weight) != len(self.classes_):
            raise ValueError(
                f"class_weight: rows have {len(self.classes_)} labels each here; give a list of as many mappings of 0 "
                f"and 1 to weights, or 'balanced', got {self.class_weight!r}"
            )
        return list(self.class_weight)

    def _numbers(self, outputs: Floats) -> npt.NDArray[np.intp]:
        """Return the classes' numbers, (rows,); or 0 and 1, (rows, labels)."""
        if self._multilabel:
            return (outputs > THRESHOLD).astype(np.intp)
        return np.minimum(predicted_classes(outputs), len(self.classes_) - 1)  # a single class is all that there is

    def _answers(self, outputs: Floats) -> npt.NDArray[Any]:
        numbers = self._numbers(outputs)
        return numbers if self._multilabel else self.classes_[numbers]

    def _encode_one(self, y: Any) -> Any:
        if self._multilabel:
            return y
        number = int(np.searchsorted(self.classes_, y))
        if number == len(self.classes_) or self.classes_[number] != y:
            raise ValueError(f"y: {plain(y)!r} is none of the classes, which are {self.classes_}")
        return self._for_loss(np.array([number]))[0]

    def _held_out_score(self, outputs: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> float:
        return float(accuracy_score(targets, self._numbers(outputs), sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
