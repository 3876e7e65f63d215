"""nbdense: small multilayer perceptrons, trained fast on a CPU, shrunk for edge devices, shipped as ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdense._version import __version__ as __version__

if TYPE_CHECKING:
    from nbdense._compile.thread_pool import set_num_threads as set_num_threads
    from nbdense.backends import set_device as set_device
    from nbdense.callbacks import BackupAndRestore as BackupAndRestore
    from nbdense.callbacks import Callback as Callback
    from nbdense.callbacks import CSVLogger as CSVLogger
    from nbdense.callbacks import EarlyStopping as EarlyStopping
    from nbdense.callbacks import History as History
    from nbdense.callbacks import LambdaCallback as LambdaCallback
    from nbdense.callbacks import LearningRateScheduler as LearningRateScheduler
    from nbdense.callbacks import ModelCheckpoint as ModelCheckpoint
    from nbdense.callbacks import ReduceLROnPlateau as ReduceLROnPlateau
    from nbdense.callbacks import TerminateOnNaN as TerminateOnNaN
    from nbdense.estimators import MLPClassifier as MLPClassifier
    from nbdense.estimators import MLPRegressor as MLPRegressor
    from nbdense.export import from_keras as from_keras
    from nbdense.export import from_onnx as from_onnx
    from nbdense.export import from_sb3 as from_sb3
    from nbdense.export import from_sklearn as from_sklearn
    from nbdense.export import from_tflite as from_tflite
    from nbdense.export import from_torch as from_torch
    from nbdense.export import pipeline_to_onnx as pipeline_to_onnx
    from nbdense.export import to_arduino as to_arduino
    from nbdense.export import to_c as to_c
    from nbdense.export import to_cmake as to_cmake
    from nbdense.export import to_object as to_object
    from nbdense.export import to_onnx as to_onnx
    from nbdense.export import to_tflite as to_tflite
    from nbdense.export import to_zephyr as to_zephyr
    from nbdense.export import verify_c as verify_c
    from nbdense.export import verify_onnx as verify_onnx
    from nbdense.export import verify_tflite as verify_tflite
    from nbdense.layers import ELU as ELU
    from nbdense.layers import Activation as Activation
    from nbdense.layers import ActivityRegularization as ActivityRegularization
    from nbdense.layers import BatchNormalization as BatchNormalization
    from nbdense.layers import Dense as Dense
    from nbdense.layers import Dropout as Dropout
    from nbdense.layers import Flatten as Flatten
    from nbdense.layers import Input as Input
    from nbdense.layers import LayerNormalization as LayerNormalization
    from nbdense.layers import LeakyReLU as LeakyReLU
    from nbdense.layers import ReLU as ReLU
    from nbdense.layers import Residual as Residual
    from nbdense.layers import RMSNormalization as RMSNormalization
    from nbdense.layers import Softmax as Softmax
    from nbdense.losses import BinaryCrossentropy as BinaryCrossentropy
    from nbdense.losses import BinaryFocalCrossentropy as BinaryFocalCrossentropy
    from nbdense.losses import CategoricalCrossentropy as CategoricalCrossentropy
    from nbdense.losses import CategoricalFocalCrossentropy as CategoricalFocalCrossentropy
    from nbdense.losses import CategoricalGeneralizedCrossEntropy as CategoricalGeneralizedCrossEntropy
    from nbdense.losses import CategoricalHinge as CategoricalHinge
    from nbdense.losses import CosineSimilarity as CosineSimilarity
    from nbdense.losses import Dice as Dice
    from nbdense.losses import Hinge as Hinge
    from nbdense.losses import Huber as Huber
    from nbdense.losses import KLDivergence as KLDivergence
    from nbdense.losses import LogCosh as LogCosh
    from nbdense.losses import MeanAbsoluteError as MeanAbsoluteError
    from nbdense.losses import MeanAbsolutePercentageError as MeanAbsolutePercentageError
    from nbdense.losses import MeanSquaredError as MeanSquaredError
    from nbdense.losses import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
    from nbdense.losses import Poisson as Poisson
    from nbdense.losses import Quantile as Quantile
    from nbdense.losses import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
    from nbdense.losses import SquaredHinge as SquaredHinge
    from nbdense.losses import Tversky as Tversky
    from nbdense.metrics import AUC as AUC
    from nbdense.metrics import BinaryAccuracy as BinaryAccuracy
    from nbdense.metrics import CategoricalAccuracy as CategoricalAccuracy
    from nbdense.metrics import F1Score as F1Score
    from nbdense.metrics import Precision as Precision
    from nbdense.metrics import R2Score as R2Score
    from nbdense.metrics import Recall as Recall
    from nbdense.metrics import RootMeanSquaredError as RootMeanSquaredError
    from nbdense.metrics import SparseCategoricalAccuracy as SparseCategoricalAccuracy
    from nbdense.metrics import SparseTopKCategoricalAccuracy as SparseTopKCategoricalAccuracy
    from nbdense.metrics import TopKCategoricalAccuracy as TopKCategoricalAccuracy
    from nbdense.models import Sequential as Sequential
    from nbdense.models import load_model as load_model
    from nbdense.optimizers import SGD as SGD
    from nbdense.optimizers import Adadelta as Adadelta
    from nbdense.optimizers import Adagrad as Adagrad
    from nbdense.optimizers import Adam as Adam
    from nbdense.optimizers import Adamax as Adamax
    from nbdense.optimizers import AdamW as AdamW
    from nbdense.optimizers import Ftrl as Ftrl
    from nbdense.optimizers import Lion as Lion
    from nbdense.optimizers import Nadam as Nadam
    from nbdense.optimizers import RMSprop as RMSprop
    from nbdense.quant import PruningSchedule as PruningSchedule
    from nbdense.quant import compare as compare
    from nbdense.quant import prune as prune
    from nbdense.quant import quantize as quantize
    from nbdense.quant import quantize_aware as quantize_aware
    from nbdense.quant import sparsify as sparsify
    from nbdense.regularizers import L1 as L1
    from nbdense.regularizers import L1L2 as L1L2
    from nbdense.regularizers import L2 as L2
    from nbdense.regularizers import l1 as l1
    from nbdense.regularizers import l1_l2 as l1_l2
    from nbdense.regularizers import l2 as l2
    from nbdense.schedules import CosineDecay as CosineDecay
    from nbdense.schedules import CosineDecayRestarts as CosineDecayRestarts
    from nbdense.schedules import ExponentialDecay as ExponentialDecay
    from nbdense.schedules import InverseTimeDecay as InverseTimeDecay
    from nbdense.schedules import OneCycle as OneCycle
    from nbdense.schedules import PiecewiseConstantDecay as PiecewiseConstantDecay
    from nbdense.schedules import PolynomialDecay as PolynomialDecay
    from nbdense.schedules import StepDecay as StepDecay
    from nbdense.utils import set_random_seed as set_random_seed
    from nbdense.utils import to_categorical as to_categorical

# Where each public name lives: importing nbdense imports none of it until it is used.
_HOMES = {
    "nbdense._compile.thread_pool": ["set_num_threads"],
    "nbdense.backends": ["set_device"],
    "nbdense.callbacks": [
        "BackupAndRestore",
        "CSVLogger",
        "Callback",
        "EarlyStopping",
        "History",
        "LambdaCallback",
        "LearningRateScheduler",
        "ModelCheckpoint",
        "ReduceLROnPlateau",
        "TerminateOnNaN",
    ],
    "nbdense.estimators": ["MLPClassifier", "MLPRegressor"],
    "nbdense.export": [
        "from_keras",
        "from_onnx",
        "from_sb3",
        "from_sklearn",
        "from_tflite",
        "from_torch",
        "pipeline_to_onnx",
        "to_arduino",
        "to_c",
        "to_cmake",
        "to_object",
        "to_onnx",
        "to_tflite",
        "to_zephyr",
        "verify_c",
        "verify_onnx",
        "verify_tflite",
    ],
    "nbdense.layers": [
        "ELU",
        "Activation",
        "ActivityRegularization",
        "BatchNormalization",
        "Dense",
        "Dropout",
        "Flatten",
        "Input",
        "LayerNormalization",
        "LeakyReLU",
        "ReLU",
        "Residual",
        "RMSNormalization",
        "Softmax",
    ],
    "nbdense.losses": [
        "BinaryCrossentropy",
        "BinaryFocalCrossentropy",
        "CategoricalCrossentropy",
        "CategoricalFocalCrossentropy",
        "CategoricalGeneralizedCrossEntropy",
        "CategoricalHinge",
        "CosineSimilarity",
        "Dice",
        "Hinge",
        "Huber",
        "KLDivergence",
        "LogCosh",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredError",
        "MeanSquaredLogarithmicError",
        "Poisson",
        "Quantile",
        "SparseCategoricalCrossentropy",
        "SquaredHinge",
        "Tversky",
    ],
    "nbdense.metrics": [
        "AUC",
        "BinaryAccuracy",
        "CategoricalAccuracy",
        "F1Score",
        "Precision",
        "R2Score",
        "Recall",
        "RootMeanSquaredError",
        "SparseCategoricalAccuracy",
        "SparseTopKCategoricalAccuracy",
        "TopKCategoricalAccuracy",
    ],
    "nbdense.models": ["Sequential", "load_model"],
    "nbdense.optimizers": ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "Nadam", "RMSprop"],
    "nbdense.quant": ["PruningSchedule", "compare", "prune", "quantize", "quantize_aware", "sparsify"],
    "nbdense.regularizers": ["L1", "L1L2", "L2", "l1", "l1_l2", "l2"],
    "nbdense.schedules": [
        "CosineDecay",
        "CosineDecayRestarts",
        "ExponentialDecay",
        "InverseTimeDecay",
        "OneCycle",
        "PiecewiseConstantDecay",
        "PolynomialDecay",
        "StepDecay",
    ],
    "nbdense.utils": ["set_random_seed", "to_categorical"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


class _Unavailable(type):
    """A class in place of a name whose module cannot be imported, most often for lack of an extra: its use says why.

    So `import *`, `hasattr` and `isinstance` work without scikit-learn.
    """

    _error: ImportError

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise ImportError(cls.__doc__) from cls._error

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(cls.__doc__)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module 'nbdense' has no attribute {name!r}")
        try:
            value = getattr(import_module(_HOME[name]), name)
        except ImportError as error:
            return _Unavailable(name, (), {"__doc__": str(error), "__module__": __name__, "_error": error})
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
