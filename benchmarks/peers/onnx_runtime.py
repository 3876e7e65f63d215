"""onnxruntime, float32, on the file that nbdense exports."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.ours import make_model


def open_session(file: bytes, threads: int) -> Callable[[Array], Array]:
    """Return a function that predicts with an ONNX model's bytes: its last output of its first input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    run, name, outputs = session.run, session.get_inputs()[0].name, [session.get_outputs()[-1].name]

    def predict(x: Array) -> Array:
        probabilities: Array = run(outputs, {name: x})[0]
        return probabilities

    return predict


class OnnxRuntime:
    """onnxruntime, which only predicts."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        from nbdense.export import to_onnx

        file = to_onnx(make_model(weights), verify=False).SerializeToString()
        self.predict = open_session(file, self._threads)

    def step(self) -> float:
        raise NotImplementedError("onnxruntime does not train")

    def epochs(self, count: int) -> None:
        raise NotImplementedError("onnxruntime does not train")
