"""onnxruntime.quantization on the float file that nbdense exports: what nbdense's quantizers are held against."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process

Inputs = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
BLOCK = 32
_ROWS = 500  # of calibration at a time


class Reader(CalibrationDataReader):
    """Calibration rows, as onnxruntime reads them: in batches, until there are none."""

    def __init__(self, x: Inputs, name: str) -> None:
        self._batches: Iterator[Inputs] = iter([x[i : i + _ROWS] for i in range(0, len(x), _ROWS)])
        self._name = name

    def get_next(self) -> dict[str, Inputs] | None:
        """Return the next batch by the input's name; None behind the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def float_file(model: Any) -> bytes:
    """Return the float file that all of these begin with: bytes, because quantizers change what they are given."""
    from nbdense.export import to_onnx

    return to_onnx(model, verify=False).SerializeToString()


def classes(proto: onnx.ModelProto, x: Inputs) -> Classes:
    """Return onnxruntime's class of each row: the first of the largest outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: x})
    return np.asarray(output).argmax(axis=-1)


def size_bytes(proto: onnx.ModelProto) -> int:
    """Count the bytes of all constants: two 4-bit weights are one byte of MatMulNBits's."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer)


@contextmanager
def _quietly() -> Iterator[Path]:
    """Open a folder for the files that onnxruntime.quantization wants, and silence its advice and progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            yield Path(folder)
    finally:
        logging.disable(before)


def _prepared(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return the model with the shapes and constants that quantize_static asks to have inferred first."""
    quant_pre_process(proto, str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    return onnx.load(folder / "prepared.onnx")


def static(proto: onnx.ModelProto, calibration: Inputs) -> onnx.ModelProto:
    """Quantize by quantize_static as it comes (QDQ, int8, MinMax), with a weight scale for each channel."""
    with _quietly() as folder:
        proto, target = _prepared(proto, folder), folder / "static.onnx"
        quantize_static(proto, target, Reader(calibration, proto.graph.input[0].name), per_channel=True)
        return onnx.load(target)


def dynamic(proto: onnx.ModelProto, calibration: Inputs) -> onnx.ModelProto:
    """Quantize by quantize_dynamic, int8, with a weight scale for each channel; it takes no data."""
    with _quietly() as folder:
        proto, target = _prepared(proto, folder), folder / "dynamic.onnx"
        quantize_dynamic(proto, target, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(target)


def _with_matmuls(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with MatMul and Add for each Gemm: the 4-bit quantizers take nothing else."""
    model = ONNXModel(proto)
    model.replace_gemm_with_matmul()
    changed: onnx.ModelProto = model.model
    return changed


def int4(proto: onnx.ModelProto, calibration: Inputs) -> onnx.ModelProto:
    """Quantize by MatMulNBitsQuantizer as it comes, which rounds to nearest, with a zero point for each block."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quietly():
        quantizer = MatMulNBitsQuantizer(_with_matmuls(proto), bits=4, block_size=BLOCK)
        quantizer.process()
        return quantizer.model.model


def int4_gptq(proto: onnx.ModelProto, calibration: Inputs) -> onnx.ModelProto:
    """Quantize by gptq_quantize, which MatMulNBitsQuantizer calls, with its defaults but for blocks and data.

    Symmetric, because it fails at the zero points of an odd number of blocks, such as 784 inputs have.
    """
    from onnxruntime.quantization.neural_compressor import gptq_quantize

    batches = [(calibration[i : i + _ROWS], None) for i in range(0, len(calibration), _ROWS)]
    with _quietly():
        return gptq_quantize(_with_matmuls(proto), batches, group_size=BLOCK, scheme="sym", n_samples=-1).model


QUANTIZERS: dict[str, Callable[[onnx.ModelProto, Inputs], onnx.ModelProto]] = {
    "static": static,
    "dynamic": dynamic,
    "int4": int4,
    "int4_gptq": int4_gptq,
}


def quantize(file: bytes, calibration: Inputs, how: str) -> onnx.ModelProto:
    """Quantize a float file by a row of QUANTIZERS."""
    return QUANTIZERS[how](onnx.load_from_string(file), calibration)
