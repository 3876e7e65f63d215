"""Multilayer perceptrons as scikit-learn estimators."""

from nbdense.estimators.mlp import REGRESSION_LOSSES as REGRESSION_LOSSES
from nbdense.estimators.mlp import MLPClassifier as MLPClassifier
from nbdense.estimators.mlp import MLPRegressor as MLPRegressor
