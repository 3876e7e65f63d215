"""Pruning: weights that become zeros, blocks of them, and neurons that go; at once, or while a model trains."""

from nbdense.quant.pruning.one_shot import prune as prune
from nbdense.quant.pruning.one_shot import rewind as rewind
from nbdense.quant.pruning.one_shot import sparsity_of as sparsity_of
from nbdense.quant.pruning.report import pruning_report as pruning_report
from nbdense.quant.pruning.schedule import PruningSchedule as PruningSchedule
from nbdense.quant.pruning.sweep import sparsity_sweep as sparsity_sweep
