"""The model as data: tables, parameters, and the passes that rewrite them."""

from nbdense.network.network import SHARED_SIZE as SHARED_SIZE
from nbdense.network.network import SLAB_ROWS as SLAB_ROWS
from nbdense.network.network import SLABS as SLABS
from nbdense.network.network import Network as Network
from nbdense.network.network import Parameter as Parameter
from nbdense.network.network import Row as Row
from nbdense.network.network import held_network as held_network
from nbdense.network.network import in_dtype as in_dtype
from nbdense.network.network import layer_label as layer_label
from nbdense.network.network import set_delta_flags as set_delta_flags
