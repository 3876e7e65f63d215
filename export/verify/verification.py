"""`verify_onnx`: the comparison of what onnxruntime computes with what nbdense computes.

Floats agree where they differ by 1e-5 at most, absolute or relative to the row's largest output. A network that
amplifies rounding errors (large weights that cancel, large logits) cannot keep that under another order of summation;
for such a one the bound is four times what float32 costs it, seen from its own outputs in float32 and in float64.

Integers are compared twice. With onnxruntime's optimizations, which compute in integers, 99.9% must be equal and none
off by more than one; in a network with tables (sigmoid, tanh) the looser bound IN_FLOAT holds, because onnxruntime
computes the function itself, and where it rounds one entry to the other side, every unit that meets it is off. And as
written, without optimizations, in float, within IN_FLOAT again: only so is a wrong bias scale seen, which onnxruntime's
fused operator never reads and other runtimes do. See `nbdense.export.verify.integers`, also for models that end in
float.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from nbdense import _checks
from nbdense.export.graph.builder import Shape
from nbdense.export.graph.checks import check, check_file
from nbdense.export.networks import Floats, has_integers, network_of, shapes_of, with_predict
from nbdense.export.verify import runtime
from nbdense.export.verify.ends import ends_of
from nbdense.export.verify.integers import compare_integers, compare_values, rows_agree
from nbdense.export.verify.runtime import Outside, Session
from nbdense.export.verify.tolerance import TOLERANCE, cost_of_a_bit, cost_of_float32, largest_differences
from nbdense.export.write.writing import location_of
from nbdense.metrics.collected import predicted_classes
from nbdense.network import Network

BATCH_SIZES = (1, 7, 64)
RANDOM_ROWS = 1024  # where no data is given; all at once are a batch too


@dataclass(frozen=True)
class Verification:
    """The result of comparing an ONNX file with a model.

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
        What ``max_absolute`` or ``max_relative`` had to stay within; infinite for a model with integers inside, where
        those count, or how many rows differ.
    differing_classes : int
        Rows whose largest output is another; 0 for models of one output. Where outputs have more axes, the last one's
        rows are counted.
    integers : int or None
        Output integers compared; None for a model that ends in float.
    differing_integers : int or None
        How many of them differ, as onnxruntime runs the file.
    max_integer_difference : int or None
        Largest difference of an integer.
    differing_as_written : int or None
        How many differ where onnxruntime runs the file without optimizations, in float.
    saturates : bool
        Whether integers differ and onnxruntime's own int8 kernels overflow on this CPU (x86 without VNNI). The file is
        not at fault then: it agrees if it does as written.
    differing_labels : int or None
        How many labels are not those of the outputs beside them, which none may be; None where there are no labels.
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
    differing_labels: int | None = None

    def __str__(self) -> str:
        parts = [
            "agrees" if self.agrees else "differs",
            f"{self.rows} rows at batch sizes {', '.join(map(str, self.batch_sizes))}",
            f"largest difference {self.max_absolute:.3g} (relative {self.max_relative:.3g})",
        ]
        if self.integers is None:
            parts.append(f"allowed {self.tolerance:.3g}" if np.isfinite(self.tolerance) else "a few rows may differ")
        else:
            parts.append(
                f"{self.differing_integers} of {self.integers} integers differ, "
                f"by {self.max_integer_difference} at most, {self.differing_as_written} without optimizations"
            )
        parts.append(f"{self.differing_classes} classes differ")
        if self.differing_labels:
            parts.append(f"{self.differing_labels} labels are not the outputs'")
        if self.saturates:
            parts.append("onnxruntime's int8 kernels saturate on this CPU")
        return "; ".join(parts)


def verify_onnx(path_or_model: str | os.PathLike[str] | onnx.ModelProto, model: Any, x: Any = None) -> Verification:
    """Compare an ONNX file with the model that it was made from.

    Runs onnx's full checker and strict shape inference, then onnxruntime (one thread, its optimizations on) at batch
    sizes 1, 7, 64 and all rows, against ``model.predict``. A convolution is run on a larger image too, against the
    model on each of its windows.

    Floats agree within 1e-5, absolute or relative to the row's largest output, or within what float32 costs the model.
    Integers agree where 99.9% are equal and none is off by more than one; looser where onnxruntime computes an
    activation, or a sum of int8, in float. Of a model with integers inside that ends in float, a tenth of the rows may
    differ, by a twentieth of the largest output. On a CPU where onnxruntime's own int8 kernels saturate (x86 without
    VNNI), that is reported, and no reason to disagree.

    Parameters
    ----------
    path_or_model : path or ModelProto
        The ONNX file or model. Its first input and its last output count; labels before that are held against it.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model that the file was made of.
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
    outside: Outside = {}
    if not isinstance(path_or_model, str | os.PathLike | onnx.ModelProto):
        raise TypeError(
            "verify_onnx: the first argument is the ONNX file's path or ModelProto, the second the model; got "
            f"{type(path_or_model).__name__} first"
        )
    if isinstance(path_or_model, onnx.ModelProto):
        proto = path_or_model
        if location_of(proto) is not None:
            raise ValueError("the ONNX model's tensors lie in a file beside it: give the model's path")
        check(proto, "the ONNX model")
    else:
        proto = _read(path_or_model)
        check_file(path_or_model)
        outside = _read_outside(proto, Path(path_or_model))
    return compare(proto, model, x, outside)


def compare(proto: onnx.ModelProto, model: Any, x: Any = None, outside: Outside | None = None) -> Verification:
    """Run `verify_onnx` on a model that has passed the checker.

    Parameters
    ----------
    proto : ModelProto
        The ONNX model.
    model : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model that the file was made of.
    x : array-like, (rows, ..., n_in), optional
        Data.
    outside : mapping of str to ndarray, optional
        The tensors that the model refers to, but does not hold.
    """
    network = network_of(model)
    source, target = shapes_of(network)
    rows, ends = _rows(x, source), ends_of(proto, network)
    reference = ends.predicting(with_predict(model))
    slides = _slides(proto, source)
    shapes = _sliding(source, target) if slides else (source, target)
    run = ends.around(runtime.open_session(proto, *shapes, outside=outside))
    batches = [rows[np.arange(size) % len(rows)] for size in dict.fromkeys((*BATCH_SIZES, len(rows)))]
    outputs = [run(batch) for batch in batches]
    # A dynamically quantized row's outputs depend on the batch: each is predicted by itself.
    expected = [reference.predict(batch) for batch in batches]
    pairs = [(e, out[-1].reshape(e.shape)) for e, out in zip(expected, outputs, strict=True)]
    if slides:
        pairs.append(_windows(reference, run, rows))
    absolute, relative = largest_differences(pairs)
    labels = _differing_labels(proto, outputs[-1], 1 if slides else -1)
    fields: dict[str, Any] = {}
    if not has_integers(network):
        tolerance = TOLERANCE
        if min(absolute, relative) > tolerance:
            cost = cost_of_float32(network, rows) if isinstance(network, Network) else cost_of_a_bit(reference, rows)
            tolerance = max(tolerance, cost) if np.isfinite(cost) else tolerance
        agrees = min(absolute, relative) <= tolerance
    else:
        tolerance = float("inf")
        if network.ends_in_integers:
            agrees, fields = compare_integers(proto, reference, rows, outside, ends)
        else:
            agrees, fields = compare_values(proto, reference, rows, outside, ends, TOLERANCE)
        if slides:
            agrees = agrees and (fields["saturates"] or rows_agree(*pairs[-1], TOLERANCE))
    return Verification(
        agrees=agrees and not labels,
        rows=len(rows),
        batch_sizes=tuple(len(batch) for batch in batches),
        max_absolute=absolute,
        max_relative=relative,
        tolerance=tolerance,
        differing_classes=sum(int((a.argmax(axis=-1) != b.argmax(axis=-1)).sum()) for a, b in pairs),
        differing_labels=labels,
        **fields,
    )


def _read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    content = Path(path).read_bytes()
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, which onnx does not pass on
        raise ValueError(f"{path} is damaged or truncated, or no ONNX file: {error}") from error


def _read_outside(proto: onnx.ModelProto, path: Path) -> Outside:
    """Return the tensors in the file beside a model."""
    tensors = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    try:
        return {tensor.name: numpy_helper.to_array(tensor, str(path.parent)) for tensor in tensors}
    except Exception as error:  # onnx has no common class for what can be wrong with such a file
        raise ValueError(f"{path}: the file {location_of(proto)} beside it is damaged or truncated: {error}") from error


def _rows(x: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if x is None:
        return np.random.default_rng(0).standard_normal((RANDOM_ROWS, *shape), np.float32)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(_checks.rows("x", x, shape, "the model"), np.float32)
    if len(array) == 0:
        raise ValueError("x: there are no rows to compare on")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"x: NaN or infinity (in float32) in row {row}, column {column}; there is nothing to compare")
    return array.reshape(len(array), *shape)


def _slides(proto: onnx.ModelProto, shape: tuple[int, ...]) -> bool:
    """Tell whether the model is a convolution: height and width of its input are dynamic."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    return len(shape) == 3 and len(dims) == 4 and not any(dim.HasField("dim_value") for dim in dims[2:])


def _sliding(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[Shape, Shape]:
    """Return the shapes of a convolution's ends, -1 for dynamic axes."""
    return (source[0], -1, -1), (target[-1], -1, -1)


def _windows(reference: Any, run: Session, rows: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return the model's outputs for each window of a larger image, and a convolution's for that image."""
    _, _, height, width = rows.shape
    four = rows[np.arange(4) % len(rows)]
    image = np.concatenate([np.concatenate([*four[:2]], axis=2), np.concatenate([*four[2:]], axis=2)], axis=1)
    image = np.ascontiguousarray(image[:, : height + 2, : width + 3])
    windows = np.lib.stride_tricks.sliding_window_view(image, (height, width), axis=(1, 2))
    windows = np.ascontiguousarray(windows.transpose(1, 2, 0, 3, 4)).reshape(-1, *rows.shape[1:])
    expected = reference.predict(windows)
    outputs = run(image[np.newaxis])[-1]
    return expected, outputs.transpose(0, 2, 3, 1).reshape(expected.shape)


def _differing_labels(proto: onnx.ModelProto, outputs: list[npt.NDArray[Any]], axis: int) -> int | None:
    """Count the labels that are not those of the outputs beside them; None without labels. NaN has no label."""
    if len(outputs) < 2 or outputs[0].dtype.kind not in "iOU":
        return None
    labels, values = outputs[0], np.moveaxis(outputs[-1], axis, -1)
    wanted: Any = predicted_classes(values, at_threshold=1)
    if labels.dtype.kind != "i":
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        if "class_names" not in metadata:
            raise ValueError("the ONNX model gives names as labels, but its metadata has no class_names")
        wanted = np.array(json.loads(metadata["class_names"]), object)[wanted]
    if labels.shape != wanted.shape:
        raise ValueError(f"the ONNX model's labels have shape {labels.shape}, its outputs ask for {wanted.shape}")
    return int(((labels != wanted) & ~np.isnan(values).any(axis=-1)).sum())
