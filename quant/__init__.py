"""Quantization and pruning of trained networks. Names load their modules when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "PruningSchedule": "nbdense.quant.pruning",
    "QuantizedModel": "nbdense.quant.model.model",
    "QuantizedNetwork": "nbdense.quant.model.network",
    "compare": "nbdense.quant.reporting.comparison",
    "SparseModel": "nbdense.quant.sparse.model",
    "prune": "nbdense.quant.pruning",
    "pruning_report": "nbdense.quant.pruning",
    "quantize": "nbdense.quant.quantization",
    "quantize_aware": "nbdense.quant.training.aware",
    "rewind": "nbdense.quant.pruning",
    "sparsity_sweep": "nbdense.quant.pruning",
    "sparsify": "nbdense.quant.sparse.sparsify",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
