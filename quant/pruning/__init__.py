"""Pruning: weights that become zeros, for good."""

from nbdense.quant.pruning.one_shot import prune as prune
from nbdense.quant.pruning.one_shot import sparsity_of as sparsity_of
