"""onnxruntime, as verification runs it: one thread, on a CPU, silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from nbdense.export.graph.builder import Shape
from nbdense.export.graph.checks import serialize

Session = Callable[[npt.NDArray[Any]], list[npt.NDArray[Any]]]
Outside = Mapping[str, npt.NDArray[Any]]  # tensors that lie in a file beside the model's


def open_session(
    proto: onnx.ModelProto,
    input_shape: Shape | None,
    output_shape: Shape | None,
    optimize: bool = True,
    outside: Outside | None = None,
) -> Session:
    """Return a function that runs a model, from its first input to all its outputs.

    Parameters
    ----------
    proto : ModelProto
        The model.
    input_shape, output_shape : sequence of int
        Shapes of one row of data, which its first input and its last output must have; -1 for what is dynamic. None:
        whatever it has.
    optimize : bool
        Whether with onnxruntime's optimizations.
    outside : mapping of str to ndarray, optional
        Tensors that the model refers to, but does not hold.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the ends have other shapes.
    RuntimeError
        If onnxruntime cannot load the model; or, from what is returned, run it.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ImportError("verify_onnx needs onnxruntime: pip install 'nbdense[onnxruntime]'") from error
    options = session_options(optimize)
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in (outside or {}).items()}
    if values:
        options.add_external_initializers(list(values), list(values.values()))
    opsets = ", ".join(str(entry.version) for entry in proto.opset_import)
    try:
        session = ort.InferenceSession(serialize(proto), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise RuntimeError(
            f"onnxruntime {ort.__version__} cannot load the model (opset {opsets}, IR version {proto.ir_version}); "
            f"to_onnx with verify=False exports without it: {error}"
        ) from error
    source, target = session.get_inputs()[0], session.get_outputs()[-1]
    for end, shape in ((source, input_shape), (target, output_shape)):
        sizes = [size if isinstance(size, int) else -1 for size in end.shape]
        if shape is not None and sizes != [-1, *shape]:
            wanted = ", ".join(str(size) if size != -1 else "dynamic" for size in shape)
            raise ValueError(f"the ONNX model's {end.name!r} has shape {end.shape}, the model needs [batch, {wanted}]")

    def run(batch: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        try:
            outputs: list[npt.NDArray[Any]] = session.run(None, {source.name: batch})
        except Exception as error:
            raise RuntimeError(f"onnxruntime cannot run the model at batch size {len(batch)}: {error}") from error
        return outputs

    return run


def session_options(optimize: bool = True) -> Any:
    """Return the options of sessions that are compared: one thread, and nothing on stderr.

    Parameters
    ----------
    optimize : bool
        Whether with onnxruntime's optimizations.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Else it would compute products with weights of 4 bits on inputs rounded to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 4  # what matters is raised
    return options


def kernels_saturate() -> bool:
    """Tell whether onnxruntime's u8 * s8 products overflow 16 bits on this CPU, tried on the largest there are."""
    depth = 64
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["batch", 1])],
        [helper.make_tensor("w", TensorProto.INT8, [depth, 1], [127] * depth)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (sums,) = open_session(proto, (depth,), (1,))(np.full((1, depth), 255, np.uint8))
    return int(sums[0, 0]) != 255 * 127 * depth
