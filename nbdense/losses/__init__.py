"""Losses to minimise, under Keras's names: classes, and functions on arrays."""

from nbdense.losses.base import FunctionLoss as FunctionLoss
from nbdense.losses.base import Loss as Loss
from nbdense.losses.functions import binary_crossentropy as binary_crossentropy
from nbdense.losses.functions import binary_focal_crossentropy as binary_focal_crossentropy
from nbdense.losses.functions import categorical_crossentropy as categorical_crossentropy
from nbdense.losses.functions import categorical_focal_crossentropy as categorical_focal_crossentropy
from nbdense.losses.functions import categorical_generalized_cross_entropy as categorical_generalized_cross_entropy
from nbdense.losses.functions import categorical_hinge as categorical_hinge
from nbdense.losses.functions import cosine_similarity as cosine_similarity
from nbdense.losses.functions import dice as dice
from nbdense.losses.functions import hinge as hinge
from nbdense.losses.functions import huber as huber
from nbdense.losses.functions import kl_divergence as kl_divergence
from nbdense.losses.functions import log_cosh as log_cosh
from nbdense.losses.functions import mean_absolute_error as mean_absolute_error
from nbdense.losses.functions import mean_absolute_percentage_error as mean_absolute_percentage_error
from nbdense.losses.functions import mean_squared_error as mean_squared_error
from nbdense.losses.functions import mean_squared_logarithmic_error as mean_squared_logarithmic_error
from nbdense.losses.functions import poisson as poisson
from nbdense.losses.functions import quantile as quantile
from nbdense.losses.functions import sparse_categorical_crossentropy as sparse_categorical_crossentropy
from nbdense.losses.functions import squared_hinge as squared_hinge
from nbdense.losses.functions import tversky as tversky
from nbdense.losses.margins import CategoricalHinge as CategoricalHinge
from nbdense.losses.margins import Dice as Dice
from nbdense.losses.margins import Hinge as Hinge
from nbdense.losses.margins import SquaredHinge as SquaredHinge
from nbdense.losses.margins import Tversky as Tversky
from nbdense.losses.named import LOSSES as LOSSES
from nbdense.losses.named import custom as custom
from nbdense.losses.named import deserialize as deserialize
from nbdense.losses.named import for_training as for_training
from nbdense.losses.named import get as get
from nbdense.losses.named import serialize as serialize
from nbdense.losses.probabilities import BinaryCrossentropy as BinaryCrossentropy
from nbdense.losses.probabilities import BinaryFocalCrossentropy as BinaryFocalCrossentropy
from nbdense.losses.probabilities import CategoricalCrossentropy as CategoricalCrossentropy
from nbdense.losses.probabilities import CategoricalFocalCrossentropy as CategoricalFocalCrossentropy
from nbdense.losses.probabilities import CategoricalGeneralizedCrossEntropy as CategoricalGeneralizedCrossEntropy
from nbdense.losses.probabilities import KLDivergence as KLDivergence
from nbdense.losses.probabilities import Poisson as Poisson
from nbdense.losses.probabilities import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from nbdense.losses.reductions import squeeze_or_expand_to_same_rank as squeeze_or_expand_to_same_rank
from nbdense.losses.regression import CosineSimilarity as CosineSimilarity
from nbdense.losses.regression import Huber as Huber
from nbdense.losses.regression import LogCosh as LogCosh
from nbdense.losses.regression import MeanAbsoluteError as MeanAbsoluteError
from nbdense.losses.regression import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from nbdense.losses.regression import MeanSquaredError as MeanSquaredError
from nbdense.losses.regression import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from nbdense.losses.regression import Quantile as Quantile

# Keras's short names of the functions
bce = BCE = binary_crossentropy
kld = KLD = kl_divergence
mae = MAE = mean_absolute_error
mape = MAPE = mean_absolute_percentage_error
mse = MSE = mean_squared_error
msle = MSLE = mean_squared_logarithmic_error
logcosh = log_cosh
