"""`from_sklearn`: a fitted MLPClassifier or MLPRegressor of scikit-learn's as a Sequential, with scaling in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbdense.export.frameworks.chain import Chain, array_of, class_of
from nbdense.export.graph.steps import function
from nbdense.models import Sequential

OWNER = "from_sklearn"
_NAMES = {"identity": None, "logistic": "sigmoid", "tanh": "tanh", "relu": "relu", "softmax": "softmax"}


def from_sklearn(estimator: Any, *, dtype: str = "float32") -> Sequential:
    """Make a model of a fitted multilayer perceptron of scikit-learn's, to train further, shrink and export.

    It predicts what ``predict_proba`` does, or ``predict`` of an MLPRegressor, within 1e-5 of the outputs' size; a
    classifier of two classes, or of several labels, has a sigmoid, and one column for the second class, or for each
    label. Weights of float64 are rounded to ``dtype``.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor or Pipeline
        Fitted. In a Pipeline StandardScaler, MinMaxScaler and MaxAbsScaler may stand in front: they go into the first
        layer, or become a `BatchNormalization` that does not learn where the data is far from zero.
    dtype : {"float32", "float64"}
        Type of the model.

    Returns
    -------
    Sequential
        Not compiled. Its ``class_names`` are the classes, as str, of a classifier.

    Raises
    ------
    TypeError
        If it is no such estimator.
    ValueError
        If it is not fitted, or a step of the pipeline is none of those: it is named.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neural_network import MLPClassifier
    >>> from nbdense.export import from_sklearn
    >>> x, y = np.arange(40.0).reshape(20, 2) / 40, np.arange(20) % 2
    >>> fitted = MLPClassifier((4,), solver="lbfgs", max_iter=5000, random_state=0).fit(x, y)
    >>> model = from_sklearn(fitted)
    >>> bool(np.abs(model.predict(x)[:, 0] - fitted.predict_proba(x)[:, 1]).max() < 1e-5), model.class_names
    (True, ['0', '1'])
    """
    steps = estimator.steps if class_of(estimator, "sklearn", ()) == "Pipeline" else [("", estimator)]
    *ahead, (name, last) = [step for step in steps if step[1] is not None and step[1] != "passthrough"]
    kind = class_of(last, "sklearn", ())
    if type(last).__module__.startswith("nbdense."):
        raise TypeError(f"{OWNER}: {type(last).__name__} is nbdense's own, whose network is here already: its `model_`")
    if kind not in ("MLPClassifier", "MLPRegressor"):
        raise TypeError(
            f"{OWNER}: expected an MLPClassifier or MLPRegressor of scikit-learn's, or a Pipeline that ends in one, "
            f"got {type(last).__name__}"
        )
    if not hasattr(last, "coefs_"):
        raise ValueError(f"{OWNER}: {kind} {name!r} is not fitted; call fit first")
    chain = Chain(OWNER)
    for name, scaler in ahead:
        scale = _SCALERS.get(class_of(scaler, "sklearn", ("transform",)))
        place = f"{type(scaler).__name__} {name!r}"
        if scale is None:
            raise chain.fail(
                place,
                f"a model has a layer for {', '.join(_SCALERS)} alone; apply it to the rows first, or fit an "
                "nbdense.MLPClassifier behind it, whose Pipeline nbdense.pipeline_to_onnx exports",
            )
        chain.affine(*scale(scaler), place)
    for number, (kernel, bias) in enumerate(zip(last.coefs_, last.intercepts_, strict=True)):
        chain.dense(array_of(kernel), array_of(bias), "", f"{kind}: layer {number}")
        name = last.activation if number < len(last.coefs_) - 1 else last.out_activation_
        activation = _NAMES[name]
        chain.add(*([] if activation is None else [function(activation)]))
    model = chain.model(dtype)
    vars(model)["class_names"] = _class_names(last) if kind == "MLPClassifier" else None
    return model


def _class_names(classifier: Any) -> list[str]:
    return [str(label) for label in np.asarray(classifier.classes_).tolist()]


def _standard(scaler: Any) -> tuple[Any, Any, Any]:
    mean, scale = scaler.mean_ if scaler.with_mean else None, scaler.scale_
    return 0.0 if mean is None else mean, 1.0 if scale is None else 1 / scale, 0.0


# Mean, scale and shift of each.
_SCALERS: dict[str, Callable[[Any], tuple[Any, Any, Any]]] = {
    "StandardScaler": _standard,
    "MinMaxScaler": lambda scaler: (0.0, scaler.scale_, scaler.min_),
    "MaxAbsScaler": lambda scaler: (0.0, 1 / scaler.scale_, 0.0),
}
