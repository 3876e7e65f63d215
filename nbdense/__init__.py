"""nbdense: small multilayer perceptrons, trained fast on a CPU, shrunk for edge devices, shipped as ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdense._version import __version__ as __version__

if TYPE_CHECKING:
    from nbdense._threads import set_num_threads as set_num_threads
    from nbdense.callbacks import Callback as Callback
    from nbdense.callbacks import History as History
    from nbdense.export import to_onnx as to_onnx
    from nbdense.export import verify_onnx as verify_onnx
    from nbdense.layers import Dense as Dense
    from nbdense.layers import Input as Input
    from nbdense.losses import BinaryCrossentropy as BinaryCrossentropy
    from nbdense.losses import CategoricalCrossentropy as CategoricalCrossentropy
    from nbdense.losses import MeanSquaredError as MeanSquaredError
    from nbdense.losses import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
    from nbdense.models import Sequential as Sequential
    from nbdense.models import load_model as load_model
    from nbdense.optimizers import SGD as SGD
    from nbdense.optimizers import Adam as Adam
    from nbdense.quant import prune as prune
    from nbdense.quant import quantize as quantize
    from nbdense.utils import set_random_seed as set_random_seed
    from nbdense.utils import to_categorical as to_categorical

# Where each public name lives: importing nbdense imports none of it until it is used.
_HOMES = {
    "nbdense._threads": ["set_num_threads"],
    "nbdense.callbacks": ["Callback", "History"],
    "nbdense.export": ["to_onnx", "verify_onnx"],
    "nbdense.layers": ["Dense", "Input"],
    "nbdense.losses": [
        "BinaryCrossentropy",
        "CategoricalCrossentropy",
        "MeanSquaredError",
        "SparseCategoricalCrossentropy",
    ],
    "nbdense.models": ["Sequential", "load_model"],
    "nbdense.optimizers": ["SGD", "Adam"],
    "nbdense.quant": ["prune", "quantize"],
    "nbdense.utils": ["set_random_seed", "to_categorical"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _HOME:
            value = getattr(import_module(_HOME[name]), name)
            globals()[name] = value
            return value
        raise AttributeError(f"module 'nbdense' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
