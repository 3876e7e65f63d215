"""Networks in 8-bit integers: nbdense's own, and onnxruntime's of the file that nbdense exports of the same one."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import CALIBRATION_ROWS, Weights, make_rows
from benchmarks.peers import Array
from benchmarks.peers.ours import make_model


def quantized(weights: Weights, dtype: str) -> Any:
    """Return a model of these weights in integers, calibrated on the same rows for every peer and batch."""
    from nbdense.quant import quantize

    widths = (weights[0][0].shape[0], *(kernel.shape[1] for kernel, _ in weights))
    return quantize(make_model(weights), make_rows(widths, CALIBRATION_ROWS)[0], activation_dtype=dtype)


class Inference:
    """A peer that only predicts."""

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        raise NotImplementedError

    def step(self) -> float:
        raise NotImplementedError("it only predicts")

    def epochs(self, count: int) -> None:
        raise NotImplementedError("it only predicts")


class NbdenseInt8(Inference):
    """nbdense, with a model that `quantize` makes."""

    def __init__(self, threads: int) -> None:
        import nbdense as nb

        nb.set_num_threads(threads)

    def reset(self, weights: Weights) -> None:
        self.predict = quantized(weights, "int8").predict


class OnnxRuntimeInt8(Inference):
    """onnxruntime, on the file that nbdense exports of that model."""

    dtype = "int8"

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def reset(self, weights: Weights) -> None:
        from benchmarks.peers.onnx_runtime import open_session
        from nbdense.export import to_onnx

        file = to_onnx(quantized(weights, self.dtype), verify=False).SerializeToString()
        self.predict = open_session(file, self._threads)


class OnnxRuntimeUint8(OnnxRuntimeInt8):
    """The same with uint8 activations: which type is faster depends on the CPU."""

    dtype = "uint8"
