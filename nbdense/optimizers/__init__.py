"""Optimizers, under Keras's names."""

from typing import Any

from nbdense.optimizers.base import Optimizer as Optimizer
from nbdense.optimizers.compiled import RESTING as RESTING
from nbdense.optimizers.compiled import Adadelta as Adadelta
from nbdense.optimizers.compiled import Adamax as Adamax
from nbdense.optimizers.compiled import Ftrl as Ftrl
from nbdense.optimizers.named import OPTIMIZERS as OPTIMIZERS
from nbdense.optimizers.named import SGD as SGD
from nbdense.optimizers.named import Adagrad as Adagrad
from nbdense.optimizers.named import Adam as Adam
from nbdense.optimizers.named import AdamW as AdamW
from nbdense.optimizers.named import Lion as Lion
from nbdense.optimizers.named import Nadam as Nadam
from nbdense.optimizers.named import RMSprop as RMSprop
from nbdense.optimizers.named import deserialize as deserialize
from nbdense.optimizers.named import for_training as for_training
from nbdense.optimizers.named import get as get
from nbdense.optimizers.named import serialize as serialize
from nbdense.optimizers.values import Rate as Rate
from nbdense.optimizers.values import Schedule as Schedule


def __getattr__(name: str) -> Any:
    if name == "schedules":  # whoever has no schedule does not load them
        from importlib import import_module

        return import_module("nbdense.optimizers.schedules")
    raise AttributeError(f"module 'nbdense.optimizers' has no attribute {name!r}")
