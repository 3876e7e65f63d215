"""The program of a file that `SparseModel.save` wrote: its kernels with their zeros, which NumPy multiplies by fastest.

What `nbdense.quant.sparse.files` would refuse is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.files import TensorFile
from nbdense.runtime import checks
from nbdense.runtime.program import Program
from nbdense.runtime.quantized import network
from nbdense.runtime.settings import one_of, shape, whole

Array = npt.NDArray[Any]

# Inputs and outputs of the blocks of each form.
FORMS = {"1x1": (1, 1), "1x4": (1, 4), "1x8": (1, 8), "1x16": (1, 16), "4x16": (4, 16)}
# Elements of kernels that a file may claim: for each that it holds, and at any rate.
MOST_CLAIMED, LEAST_CLAIMED = 1024, 2**24
_SHORT = 2**16  # blocks of inputs up to which an index takes 16 bits
_PARTS = ("values", "indices", "counts")


def sparse(file: TensorFile) -> Program:
    """Return the program of a file of kind "sparse model".

    Parameters
    ----------
    file : TensorFile
        The file, opened.
    """
    entries: Mapping[str, Any] = file.config["sparse"]
    shapes = {f"{int(index)}/kernel": shape(entry["shape"]) for index, entry in entries.items()}
    claimed, held = sum(map(math.prod, shapes.values())), sum(map(math.prod, file.shapes.values()))
    if claimed > max(LEAST_CLAIMED, MOST_CLAIMED * held):
        raise ValueError(f"its kernels claim {claimed:,} weights, and the file holds {held:,} numbers")
    parts = {f"{name}.{part}" for name in shapes for part in _PARTS}
    tensors = {name: file.read(name) for name in file.shapes if name not in parts}
    for (name, size), entry in zip(shapes.items(), entries.values(), strict=True):
        tensors[name] = _kernel(file, name, size, FORMS[one_of(entry, "form", FORMS)])
    program = network(tensors, file.config["network"])
    _check_choice(file.config["choice"], file.config["network"]["layers"])
    for name in ("few_rows", "many_rows"):
        whole(file.config, name, 0, 0)
    return program


def _check_choice(choice: Mapping[str, Any], layers: list[Mapping[str, Any]]) -> None:
    """Refuse a choice of forms, which here makes no difference, that is not of the dense layers that there are."""
    kinds = {entry["name"]: entry.get("what", entry.get("kind", "dense")) for entry in layers}
    if set(choice) != {name for name, kind in kinds.items() if kind == "dense"}:
        raise ValueError(f"choice names {list(choice)}, which are not its dense layers")
    for name, forms in choice.items():
        for number in (0, 1):
            one_of({name: forms[number]}, name, ("dense", *FORMS))


def _kernel(file: TensorFile, name: str, size: tuple[int, ...], block: tuple[int, int]) -> Array:
    """Return a kernel of the blocks that a file has of it."""
    (n_in, n_out), (height, width) = size, block
    rows, columns = -(-n_in // height), -(-n_out // width)
    counts, indices = file.read(f"{name}.counts", (columns,)), file.read(f"{name}.indices")
    checks.array(counts, np.int32, (columns,), f"{name}.counts")
    checks.array(indices, np.uint16 if rows <= _SHORT else np.uint32, (indices.size,), f"{name}.indices")
    values = file.read(f"{name}.values", (indices.size, height * width))
    if counts.min() < 0 or counts.sum(dtype=np.int64) != indices.size:
        raise ValueError(f"{name}: its counts do not sum to its {indices.size} blocks")
    outputs = np.repeat(np.arange(columns), counts)
    if indices.size and (int(indices.max()) >= rows or (np.diff(outputs * rows + indices) <= 0).any()):
        raise ValueError(f"{name}: its indices must rise from 0 to {rows - 1} within each {width} outputs")
    if values.dtype not in (np.float32, np.int8) or not np.isfinite(values).all():
        raise ValueError(f"{name}: its weights must be int8 or finite float32, got {values.dtype}")
    padded = np.zeros((rows, height, columns, width), values.dtype)
    padded[indices, :, outputs] = values.reshape(-1, height, width)
    return np.ascontiguousarray(padded.reshape(rows * height, columns * width)[:n_in, :n_out])
