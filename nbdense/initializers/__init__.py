"""Initial values of weights: functions of a key, so that the same seed gives the same weights in any process.

Classes have Keras 3's names, arguments and formulas. Their memory is that of the values and little more (orthogonal:
twice the values): kernels of a hundred million weights are built here.
"""

from nbdense.initializers.base import Initializer as Initializer
from nbdense.initializers.base import generator as generator
from nbdense.initializers.drawn import GlorotNormal as GlorotNormal
from nbdense.initializers.drawn import GlorotUniform as GlorotUniform
from nbdense.initializers.drawn import HeNormal as HeNormal
from nbdense.initializers.drawn import HeUniform as HeUniform
from nbdense.initializers.drawn import LecunNormal as LecunNormal
from nbdense.initializers.drawn import LecunUniform as LecunUniform
from nbdense.initializers.drawn import RandomInitializer as RandomInitializer
from nbdense.initializers.drawn import RandomNormal as RandomNormal
from nbdense.initializers.drawn import RandomUniform as RandomUniform
from nbdense.initializers.drawn import TorchLinear as TorchLinear
from nbdense.initializers.drawn import TruncatedNormal as TruncatedNormal
from nbdense.initializers.drawn import VarianceScaling as VarianceScaling
from nbdense.initializers.fixed import Constant as Constant
from nbdense.initializers.fixed import Identity as Identity
from nbdense.initializers.fixed import Ones as Ones
from nbdense.initializers.fixed import Zeros as Zeros
from nbdense.initializers.named import INITIALIZERS as INITIALIZERS
from nbdense.initializers.named import deserialize as deserialize
from nbdense.initializers.named import for_layer as for_layer
from nbdense.initializers.named import get as get
from nbdense.initializers.named import serialize as serialize
from nbdense.initializers.orthonormal import Orthogonal as Orthogonal

# Keras has each class under the name that it has as a string, too.
constant, identity, ones, zeros = Constant, Identity, Ones, Zeros
glorot_normal, glorot_uniform, he_normal, he_uniform = GlorotNormal, GlorotUniform, HeNormal, HeUniform
lecun_normal, lecun_uniform, orthogonal, variance_scaling = LecunNormal, LecunUniform, Orthogonal, VarianceScaling
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
