"""Layers that describe a network, as in Keras."""

from nbdense.layers.core import LAYERS as LAYERS
from nbdense.layers.core import Activation as Activation
from nbdense.layers.core import BatchNormalization as BatchNormalization
from nbdense.layers.core import Dense as Dense
from nbdense.layers.core import Dropout as Dropout
from nbdense.layers.core import Flatten as Flatten
from nbdense.layers.core import Input as Input
from nbdense.layers.core import Layer as Layer
from nbdense.layers.core import LayerNormalization as LayerNormalization
from nbdense.layers.core import LeakyReLU as LeakyReLU
from nbdense.layers.core import ReLU as ReLU
from nbdense.layers.core import Residual as Residual
from nbdense.layers.core import Softmax as Softmax
from nbdense.layers.core import assign as assign
from nbdense.layers.core import hold_pruned as hold_pruned
from nbdense.layers.core import inner_layers as inner_layers
from nbdense.layers.core import layer_from_config as layer_from_config
from nbdense.layers.core import name_layers as name_layers
