"""Optimizers, under Keras's names."""

from nbdense.optimizers.base import Optimizer as Optimizer
from nbdense.optimizers.base import Rate as Rate
from nbdense.optimizers.base import Schedule as Schedule
from nbdense.optimizers.named import OPTIMIZERS as OPTIMIZERS
from nbdense.optimizers.named import SGD as SGD
from nbdense.optimizers.named import Adagrad as Adagrad
from nbdense.optimizers.named import Adam as Adam
from nbdense.optimizers.named import AdamW as AdamW
from nbdense.optimizers.named import Lion as Lion
from nbdense.optimizers.named import Nadam as Nadam
from nbdense.optimizers.named import RMSprop as RMSprop
from nbdense.optimizers.named import get as get
from nbdense.optimizers.named import serialize as serialize
