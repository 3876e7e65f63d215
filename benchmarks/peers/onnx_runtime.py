"""onnxruntime, float32, on the file that nbdense exports."""

from __future__ import annotations

import onnxruntime

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.ours import make_model


class OnnxRuntime:
    def __init__(self, threads: int) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        self.reset(weights)

    def reset(self, weights: Weights) -> None:
        from nbdense.export import to_onnx

        file = to_onnx(make_model(weights), verify=False).SerializeToString()
        session = onnxruntime.InferenceSession(file, self._options, providers=["CPUExecutionProvider"])
        self._run = session.run
        self._input, self._outputs = session.get_inputs()[0].name, [session.get_outputs()[-1].name]

    def step(self) -> float:
        raise NotImplementedError("onnxruntime does not train")

    def epochs(self, count: int) -> None:
        raise NotImplementedError("onnxruntime does not train")

    def predict(self, x: Array) -> Array:
        probabilities: Array = self._run(self._outputs, {self._input: x})[0]
        return probabilities
