"""Networks as ONNX files, and the proof that onnxruntime computes what nbdense computed.

Importing this package imports neither onnx nor onnxruntime: names load their modules when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbdense.export.api import to_onnx as to_onnx
    from nbdense.export.importer import from_onnx as from_onnx
    from nbdense.export.pipeline.converters import register_converters as register_converters
    from nbdense.export.pipeline.sklearn import pipeline_to_onnx as pipeline_to_onnx
    from nbdense.export.tflite.api import to_tflite as to_tflite
    from nbdense.export.tflite.importer import from_tflite as from_tflite
    from nbdense.export.verify.verification import Verification as Verification
    from nbdense.export.verify.verification import verify_onnx as verify_onnx

_HOME = {
    "Verification": "nbdense.export.verify.verification",
    "pipeline_to_onnx": "nbdense.export.pipeline.sklearn",
    "register_converters": "nbdense.export.pipeline.converters",
    "from_onnx": "nbdense.export.importer",
    "from_tflite": "nbdense.export.tflite.importer",
    "to_onnx": "nbdense.export.api",
    "to_tflite": "nbdense.export.tflite.api",
    "verify_onnx": "nbdense.export.verify.verification",
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
