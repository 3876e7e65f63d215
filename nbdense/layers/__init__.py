"""Layers that describe a network, as in Keras."""

from typing import Any

from nbdense.layers.activation import ELU as ELU
from nbdense.layers.activation import Activation as Activation
from nbdense.layers.activation import LeakyReLU as LeakyReLU
from nbdense.layers.activation import ReLU as ReLU
from nbdense.layers.activation import Softmax as Softmax
from nbdense.layers.base import Input as Input
from nbdense.layers.base import InputLayer as InputLayer
from nbdense.layers.base import Layer as Layer
from nbdense.layers.base import NotBuiltError as NotBuiltError
from nbdense.layers.base import float_dtype as float_dtype
from nbdense.layers.base import give_tensors as give_tensors
from nbdense.layers.base import inner_layers as inner_layers
from nbdense.layers.base import name_layers as name_layers
from nbdense.layers.batch_normalization import BatchNormalization as BatchNormalization
from nbdense.layers.composite import Composite as Composite
from nbdense.layers.composite import Residual as Residual
from nbdense.layers.composite import layers_of as layers_of
from nbdense.layers.dense import Dense as Dense
from nbdense.layers.fake_quantization import FakeQuantize as FakeQuantize
from nbdense.layers.flatten import Flatten as Flatten
from nbdense.layers.forms import FORMS as FORMS
from nbdense.layers.forms import RowForm as RowForm
from nbdense.layers.forms import form_of as form_of
from nbdense.layers.layer_normalization import LayerNormalization as LayerNormalization
from nbdense.layers.registry import LAYERS as LAYERS
from nbdense.layers.registry import layer_from_config as layer_from_config
from nbdense.layers.registry import register as register
from nbdense.layers.regularization import ActivityRegularization as ActivityRegularization
from nbdense.layers.regularization import Dropout as Dropout
from nbdense.layers.rms_normalization import RMSNormalization as RMSNormalization
from nbdense.layers.weights import Weight as Weight
from nbdense.layers.weights import assign as assign
from nbdense.layers.weights import hold_pruned as hold_pruned


def __getattr__(name: str) -> Any:
    if name == "PReLU":
        raise AttributeError(
            "nbdense.layers has no PReLU: no slope is trained; LeakyReLU(negative_slope) has one that stays"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
