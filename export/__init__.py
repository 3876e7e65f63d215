"""Networks as ONNX files and as C, and the proof that they compute what nbdense computed.

Importing this package imports neither onnx nor onnxruntime: names load their modules when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbdense.export.api import to_onnx as to_onnx
    from nbdense.export.c.api import to_c as to_c
    from nbdense.export.c.costs.costs import Estimate as Estimate
    from nbdense.export.c.estimation import estimate as estimate
    from nbdense.export.c.objects import to_object as to_object
    from nbdense.export.c.packages import to_arduino as to_arduino
    from nbdense.export.c.packages import to_cmake as to_cmake
    from nbdense.export.c.packages import to_zephyr as to_zephyr
    from nbdense.export.c.verification import CVerification as CVerification
    from nbdense.export.c.verification import verify_c as verify_c
    from nbdense.export.frameworks.keras import from_keras as from_keras
    from nbdense.export.frameworks.sb3 import from_sb3 as from_sb3
    from nbdense.export.frameworks.sklearn import from_sklearn as from_sklearn
    from nbdense.export.frameworks.torch import from_torch as from_torch
    from nbdense.export.importer import from_onnx as from_onnx
    from nbdense.export.pipeline.converters import register_converters as register_converters
    from nbdense.export.pipeline.sklearn import pipeline_to_onnx as pipeline_to_onnx
    from nbdense.export.tflite.api import to_tflite as to_tflite
    from nbdense.export.tflite.importer import from_tflite as from_tflite
    from nbdense.export.tflite.verification import TfliteVerification as TfliteVerification
    from nbdense.export.tflite.verification import verify_tflite as verify_tflite
    from nbdense.export.verify.verification import Verification as Verification
    from nbdense.export.verify.verification import verify_onnx as verify_onnx

_HOME = {
    "CVerification": "nbdense.export.c.verification",
    "Estimate": "nbdense.export.c.costs.costs",
    "TfliteVerification": "nbdense.export.tflite.verification",
    "Verification": "nbdense.export.verify.verification",
    "pipeline_to_onnx": "nbdense.export.pipeline.sklearn",
    "register_converters": "nbdense.export.pipeline.converters",
    "estimate": "nbdense.export.c.estimation",
    "from_keras": "nbdense.export.frameworks.keras",
    "from_onnx": "nbdense.export.importer",
    "from_sb3": "nbdense.export.frameworks.sb3",
    "from_sklearn": "nbdense.export.frameworks.sklearn",
    "from_tflite": "nbdense.export.tflite.importer",
    "from_torch": "nbdense.export.frameworks.torch",
    "to_arduino": "nbdense.export.c.packages",
    "to_c": "nbdense.export.c.api",
    "to_cmake": "nbdense.export.c.packages",
    "to_object": "nbdense.export.c.objects",
    "to_onnx": "nbdense.export.api",
    "to_tflite": "nbdense.export.tflite.api",
    "to_zephyr": "nbdense.export.c.packages",
    "verify_c": "nbdense.export.c.verification",
    "verify_onnx": "nbdense.export.verify.verification",
    "verify_tflite": "nbdense.export.tflite.verification",
}
__all__ = sorted(_HOME)

# Hidden from type checkers, to which every name would be right.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
