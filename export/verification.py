"""`verify_onnx`: does onnxruntime compute what nbdense computes?

Floats agree where they differ by 1e-5 at most, absolute or relative to the row's largest output. A network that
amplifies rounding errors (large weights that cancel, large logits) cannot keep that under another order of summation;
for such a one the bound is four times what float32 costs it, seen from its own outputs in float32 and in float64.

Integers are compared twice. With onnxruntime's optimizations, which compute in integers, 99.9% must be equal and none
off by more than one; in a network with tables (sigmoid, tanh) the looser bound IN_FLOAT holds, because onnxruntime
computes the function itself, and where it rounds one entry to the other side, every unit that meets it is off. And as
written, without optimizations, in float, within IN_FLOAT again: only so is a wrong bias scale seen, which onnxruntime's
fused operator never reads and other runtimes do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from nbdense import _validate
from nbdense.export.graph import check, serialize
from nbdense.network import Network, aligned_zeros

if TYPE_CHECKING:
    from nbdense.quant.network import QuantizedNetwork

BATCH_SIZES = (1, 7, 64)
RANDOM_ROWS = 1024  # where no data is given; all at once are a batch too
TOLERANCE = 1e-5
FLOAT32_FACTOR = 4.0  # times what float32 costs the network, where that is more

# (share of the integers that may differ, by how much at most)
FUSED = (1e-3, 1)
IN_FLOAT = (0.1, 3)

Floats = npt.NDArray[np.floating[Any]]
Session = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Verification:
    """What comparing an ONNX file with a model showed.

    Attributes
    ----------
    agrees : bool
        Whether they agree, by the rule in the module's docstring.
    rows : int
        Rows of data.
    batch_sizes : tuple of int
        Batches that onnxruntime ran at.
    max_absolute : float
        Largest absolute difference of an output.
    max_relative : float
        Largest difference as a share of the row's largest absolute output.
    tolerance : float
        What ``max_absolute`` or ``max_relative`` had to stay within; infinite for a quantized model, whose integers
        count.
    differing_classes : int
        Rows whose largest output is another; 0 for models of one output. Where outputs have more axes, the last one's
        rows are counted.
    integers : int or None
        Output integers compared; None for a float model.
    differing_integers : int or None
        How many of them differ, as onnxruntime runs the file.
    max_integer_difference : int or None
        By how much at most.
    differing_as_written : int or None
        How many differ where onnxruntime runs the file without optimizations, in float.
    saturates : bool
        Whether integers differ and onnxruntime's own int8 kernels overflow on this CPU (x86 without VNNI). The file is
        not at fault then: it agrees if it does as written.
    """

    agrees: bool
    rows: int
    batch_sizes: tuple[int, ...]
    max_absolute: float
    max_relative: float
    tolerance: float
    differing_classes: int
    integers: int | None = None
    differing_integers: int | None = None
    max_integer_difference: int | None = None
    differing_as_written: int | None = None
    saturates: bool = False

    def __str__(self) -> str:
        parts = [
            "agrees" if self.agrees else "differs",
            f"{self.rows} rows at batch sizes {', '.join(map(str, self.batch_sizes))}",
            f"largest difference {self.max_absolute:.3g} (relative {self.max_relative:.3g})",
        ]
        if self.integers is None:
            parts.append(f"allowed {self.tolerance:.3g}")
        else:
            parts.append(
                f"{self.differing_integers} of {self.integers} integers differ, "
                f"by {self.max_integer_difference} at most, {self.differing_as_written} without optimizations"
            )
        parts.append(f"{self.differing_classes} classes differ")
        if self.saturates:
            parts.append("onnxruntime's int8 kernels saturate on this CPU")
        return "; ".join(parts)


def verify_onnx(path_or_model: str | os.PathLike[str] | onnx.ModelProto, model: Any, x: Any = None) -> Verification:
    """Compare an ONNX file with the model that it was made from.

    Runs onnx's full checker and strict shape inference, then onnxruntime (one thread, its optimizations on) at batch
    sizes 1, 7, 64 and all rows, against ``model.predict``.

    Parameters
    ----------
    path_or_model : path or ModelProto
        The ONNX file or model. Its first input and its last output count.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        What it should compute.
    x : array-like, (rows, ..., n_in), optional
        Data to compare on, taken as float32; by default seeded standard normal rows.

    Returns
    -------
    Verification
        Its ``agrees`` says whether they do.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    OSError
        If the file cannot be read.
    TypeError, ValueError
        If the file is damaged or not valid, its input or output is not the model's, or ``x`` does not fit.
    RuntimeError
        If onnxruntime cannot load or run it.
    """
    if isinstance(path_or_model, onnx.ModelProto):
        proto, name = path_or_model, "the ONNX model"
    else:
        proto, name = _read(path_or_model), str(path_or_model)
    check(proto, name)
    return compare(proto, model, x)


def compare(proto: onnx.ModelProto, model: Any, x: Any = None) -> Verification:
    """`verify_onnx` for a model that has passed the checker.

    Parameters
    ----------
    proto : ModelProto
        The ONNX model.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        What it should compute.
    x : array-like, (rows, ..., n_in), optional
        Data.
    """
    network = network_of(model)
    source, target = shapes_of(network)
    rows = _rows(x, source)
    reference = _with_predict(model, network)
    run = _session(proto, source, target)
    expected = reference.predict(rows)
    batches = list(_batches(rows))
    pairs = [(expected[index], run(batch)) for index, batch in batches]
    absolute, relative = _differences(pairs)
    found: dict[str, Any] = {}
    if isinstance(network, Network):
        tolerance = TOLERANCE
        if min(absolute, relative) > tolerance:
            cost = FLOAT32_FACTOR * _cost_of_float32(network, rows)
            tolerance = max(tolerance, cost) if np.isfinite(cost) else tolerance
        agrees = min(absolute, relative) <= tolerance
    else:
        tolerance = float("inf")
        agrees, found = _compare_integers(proto, reference, rows)
    return Verification(
        agrees=agrees,
        rows=len(rows),
        batch_sizes=tuple(len(index) for index, _ in batches),
        max_absolute=absolute,
        max_relative=relative,
        tolerance=tolerance,
        differing_classes=sum(int((a.argmax(axis=-1) != b.argmax(axis=-1)).sum()) for a, b in pairs),
        **found,
    )


def network_of(model: Any) -> Network | QuantizedNetwork:
    """The tables of a model, or of what is itself a network.

    Parameters
    ----------
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model.

    Raises
    ------
    TypeError
        If it is none of those.
    """
    network = getattr(model, "network", model)
    if not (isinstance(network, Network) or is_quantized(network)):
        raise TypeError(f"expected a model of nbdense's, float or quantized, got {type(model).__name__}")
    return network


def shapes_of(network: Network | QuantizedNetwork) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of one row of data, before and behind a network.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    if isinstance(network, Network):
        return network.input_shape, network.output_shape
    return (network.n_in,), (network.n_out,)


def is_quantized(network: Any) -> bool:
    """Whether it is a QuantizedNetwork.

    Parameters
    ----------
    network : Network or QuantizedNetwork
        The network.
    """
    from nbdense.quant.network import QuantizedNetwork

    return isinstance(network, QuantizedNetwork)


def _with_predict(model: Any, network: Any) -> Any:
    """The model; or what gives a bare network ``predict`` (and ``predict_integers``)."""
    if model is not network:
        return model
    if is_quantized(network):
        from nbdense.quant.model import QuantizedModel

        return QuantizedModel(network)
    return _BareNetwork(network)


@dataclass(frozen=True)
class _BareNetwork:
    network: Network

    def predict(self, x: Floats) -> Floats:
        from nbdense.training import predict

        rows = np.ascontiguousarray(x, self.network.dtype).reshape(-1, self.network.n_in)
        return predict(self.network, rows).reshape(-1, *self.network.output_shape)


def _read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    content = Path(path).read_bytes()
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, which onnx does not pass on
        raise ValueError(f"{path} is damaged or truncated, or no ONNX file: {error}") from error


def _rows(x: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if x is None:
        return np.random.default_rng(0).standard_normal((RANDOM_ROWS, *shape), np.float32)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(_validate.rows("x", x, shape, "the model"), np.float32)
    if len(array) == 0:
        raise ValueError("x: there are no rows to compare on")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"x: NaN or infinity (in float32) in row {row}, column {column}; there is nothing to compare")
    return array.reshape(len(array), *shape)


def _batches(rows: npt.NDArray[np.float32]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """Row numbers and rows of a batch of each size; where there are too few rows they come again."""
    for size in dict.fromkeys((*BATCH_SIZES, len(rows))):
        index = np.arange(size) % len(rows)
        yield index, rows[index]


def _session(
    proto: onnx.ModelProto, input_shape: tuple[int, ...], output_shape: tuple[int, ...], optimize: bool = True
) -> Session:
    """What runs the model in onnxruntime, from its first input to its last output; shapes are of one row of data."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ImportError("verify_onnx needs onnxruntime: pip install 'nbdense[onnxruntime]'") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what matters is raised; nothing goes to stderr
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
        if not end.shape or tuple(end.shape[1:]) != shape or isinstance(end.shape[0], int):
            wanted = ", ".join(map(str, shape))
            raise ValueError(f"the ONNX model's {end.name!r} has shape {end.shape}, the model needs [batch, {wanted}]")

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        try:
            outputs: npt.NDArray[Any] = session.run([target.name], {source.name: batch})[0]
        except Exception as error:
            raise RuntimeError(f"onnxruntime cannot run the model at batch size {len(batch)}: {error}") from error
        return outputs

    return run


def _differences(pairs: list[tuple[Floats, Floats]]) -> tuple[float, float]:
    """Largest absolute difference, and largest as a share of the row's largest expected output (on the last axis).

    A NaN or infinity is equal to the same, and infinitely far from anything else.
    """
    absolute = relative = 0.0
    for expected, found in pairs:
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(found.astype(np.float64) - expected)
        difference[(found == expected) | (np.isnan(found) & np.isnan(expected))] = 0.0
        difference[np.isnan(difference)] = np.inf
        size = np.where(np.isfinite(expected), np.abs(expected), 0.0).max(axis=-1, keepdims=True)
        absolute = max(absolute, float(difference.max()))
        relative = max(relative, float((difference / np.maximum(size, np.finfo(np.float32).tiny)).max()))
    return absolute, relative


def _cost_of_float32(network: Network, rows: npt.NDArray[np.float32]) -> float:
    """How far the network's outputs in float32 lie from those in float64: the lesser of absolute and relative."""
    outputs = []
    for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
        twin = network.copy()
        twin.params, twin.dtype = aligned_zeros(network.params.size, dtype), dtype
        twin.params[:] = network.params
        outputs.append(_BareNetwork(twin).predict(rows))
    return min(_differences([(outputs[0], outputs[1])]))


def _compare_integers(
    proto: onnx.ModelProto, reference: Any, rows: npt.NDArray[np.float32]
) -> tuple[bool, dict[str, Any]]:
    """Whether the last layer's integers agree with nbdense's, and what there is to say of it.

    They are read off the file's last DequantizeLinear; a Softmax behind it is cut off. Another output beside it would
    not do: with int8 activations onnxruntime leaves a Gemm whose result has two readers in float, and would not
    compute what it computes of the file.
    """
    network = reference.network
    node = _last_dequantize(proto)
    scale, zero_point = _scale_of(proto, node)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if copy.graph.output[-1].name != node.output[0]:
        (softmax,) = (other for other in copy.graph.node if copy.graph.output[-1].name in other.output)
        copy.graph.node.remove(softmax)
        copy.graph.output[-1].name = node.output[0]
        del copy.graph.output[:-1]
    expected = reference.predict_integers(rows)
    fused, as_written = (
        np.abs(np.rint(_session(copy, *shapes_of(network), optimize)(rows) / scale) + zero_point - expected)
        for optimize in (True, False)
    )
    saturates = bool(fused.any()) and _saturates()
    tables = any(layer.table is not None for layer in network.layers)
    agrees = _within(as_written, IN_FLOAT) and (saturates or _within(fused, IN_FLOAT if tables else FUSED))
    return agrees, {
        "integers": fused.size,
        "differing_integers": int(np.count_nonzero(fused)),
        "max_integer_difference": int(fused.max()),
        "differing_as_written": int(np.count_nonzero(as_written)),
        "saturates": saturates,
    }


def _within(differences: npt.NDArray[Any], bound: tuple[float, int]) -> bool:
    share, most = bound
    return bool(np.count_nonzero(differences) <= share * differences.size and differences.max() <= most)


def _last_dequantize(proto: onnx.ModelProto) -> onnx.NodeProto:
    """The DequantizeLinear that the last output comes from, straight or through a Softmax."""
    writers = {output: node for node in proto.graph.node for output in node.output}
    output = proto.graph.output[-1].name
    node = writers.get(output)
    if node is not None and node.op_type == "Softmax":
        node = writers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        raise ValueError(f"the ONNX model's {output!r} comes from no DequantizeLinear: it is not of a quantized model")
    return node


def _scale_of(proto: onnx.ModelProto, node: onnx.NodeProto) -> tuple[float, int]:
    """Scale and zero point of a DequantizeLinear of one scale."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    values = [numpy_helper.to_array(constants[name]) for name in node.input[1:] if name in constants]
    if len(values) != 2 or any(value.size != 1 for value in values):
        raise ValueError(f"the ONNX model's node {node.name!r} needs one constant scale and one zero point")
    return float(values[0].item()), int(values[1].item())


def _saturates() -> bool:
    """Whether onnxruntime's u8 * s8 products overflow 16 bits on this CPU, tried on the largest there are."""
    depth = 64
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    types = onnx.TensorProto
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", types.UINT8, ["batch", depth])],
        [helper.make_tensor_value_info("y", types.INT32, ["batch", 1])],
        [helper.make_tensor("w", types.INT8, [depth, 1], [127] * depth)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = _session(proto, (depth,), (1,))(np.full((1, depth), 255, np.uint8))
    return int(found[0, 0]) != 255 * 127 * depth
