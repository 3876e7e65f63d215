"""Metrics that fit and evaluate report, under Keras's names."""

from nbdense.metrics.rowwise import AUC as AUC
from nbdense.metrics.rowwise import COLLECTED as COLLECTED
from nbdense.metrics.rowwise import METRICS as METRICS
from nbdense.metrics.rowwise import BinaryAccuracy as BinaryAccuracy
from nbdense.metrics.rowwise import CategoricalAccuracy as CategoricalAccuracy
from nbdense.metrics.rowwise import F1Score as F1Score
from nbdense.metrics.rowwise import FunctionMetric as FunctionMetric
from nbdense.metrics.rowwise import MeanAbsoluteError as MeanAbsoluteError
from nbdense.metrics.rowwise import MeanSquaredError as MeanSquaredError
from nbdense.metrics.rowwise import Metric as Metric
from nbdense.metrics.rowwise import Precision as Precision
from nbdense.metrics.rowwise import R2Score as R2Score
from nbdense.metrics.rowwise import Recall as Recall
from nbdense.metrics.rowwise import RootMeanSquaredError as RootMeanSquaredError
from nbdense.metrics.rowwise import SparseCategoricalAccuracy as SparseCategoricalAccuracy
from nbdense.metrics.rowwise import SparseTopKCategoricalAccuracy as SparseTopKCategoricalAccuracy
from nbdense.metrics.rowwise import Spec as Spec
from nbdense.metrics.rowwise import TopKCategoricalAccuracy as TopKCategoricalAccuracy
from nbdense.metrics.rowwise import deserialize as deserialize
from nbdense.metrics.rowwise import direction_of as direction_of
from nbdense.metrics.rowwise import get as get
from nbdense.metrics.rowwise import get_all as get_all
from nbdense.metrics.rowwise import serialize as serialize
