"""Multilayer perceptrons as scikit-learn estimators: for Pipeline, GridSearchCV, cross_val_score and all the rest.

They take the place of those in `sklearn.neural_network`, with the same parameters. What is trained is a
`nbdense.models.Sequential`, which a fitted estimator has as ``model_``: save, quantize or prune that. A whole fitted
Pipeline becomes one ONNX file with `nbdense.export.pipeline_to_onnx`.

They need scikit-learn: ``pip install 'nbdense[sklearn]'``.
"""

from nbdense.estimators.classifier import MLPClassifier as MLPClassifier
from nbdense.estimators.regressor import REGRESSION_LOSSES as REGRESSION_LOSSES
from nbdense.estimators.regressor import MLPRegressor as MLPRegressor
