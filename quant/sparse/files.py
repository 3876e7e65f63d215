"""Networks with sparse kernels as tensors for files: of a kernel, the blocks that are not zero, and where they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.files import FileFormatError, TensorFile
from nbdense.quant.kernels.sparse_formats import Blocks, index_type
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.sparse.forms import DENSE, FORMS, SIZES, Form, blocks_in, checked_choice

# Elements of kernels that a file may claim: for each that it holds, and at any rate.
MOST_CLAIMED, LEAST_CLAIMED = 1024, 2**24

Tensors = dict[str, npt.NDArray[Any]]
_PARTS = ("values", "indices", "counts")


def to_tensors(network: QuantizedNetwork, choice: Mapping[str, Form]) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays by name and a configuration of JSON's types, for a file.

    Kernels that are run in a sparse form are held as their blocks: "kernel.values", "kernel.indices" and
    "kernel.counts" are those of `nbdense.quant.kernels.sparse_formats.Blocks`.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    choice : mapping of str to Form
        Forms of its dense layers, by name.
    """
    tensors, config = network.to_tensors()
    sparse = {}
    for index, layer in enumerate(network.layers):
        form = _stored_form(choice.get(layer.name))
        if form != DENSE:
            blocks = blocks_in(layer, form)
            for name in ("kernel", "kernel_int4"):
                tensors.pop(f"{index}/{name}", None)
            tensors |= {f"{index}/kernel.{part}": getattr(blocks, part) for part in _PARTS}
            sparse[str(index)] = {"shape": list(blocks.shape), "form": form}
    forms = {name: [form.of(size) for size in SIZES] for name, form in choice.items()}
    return tensors, {"network": config, "choice": forms, "sparse": sparse}


def _stored_form(form: Form | None) -> str:
    """Return the form in which a file holds a kernel: the larger blocks of the two that it is run in."""
    forms = [] if form is None else [form.of(size) for size in SIZES if form.of(size) != DENSE]
    return max(forms, key=lambda name: math.prod(FORMS[name]), default=DENSE)


def read(file: TensorFile) -> tuple[QuantizedNetwork, dict[str, Form]]:
    """Read network and choice from a file.

    Parameters
    ----------
    file : TensorFile
        One of a sparse model.

    Raises
    ------
    FileFormatError
        If something is missing, of the wrong type, damaged, or claims more than the file can be worth.
    """
    try:
        config = file.config
        sparse = {f"{int(index)}/kernel": _claim(entry) for index, entry in config["sparse"].items()}
        claimed, held = sum(math.prod(shape) for shape, _ in sparse.values()), sum(map(math.prod, file.shapes.values()))
        if claimed > max(LEAST_CLAIMED, MOST_CLAIMED * held):
            raise ValueError(f"its kernels claim {claimed:,} weights, and the file holds {held:,} numbers")
        parts = {f"{name}.{part}" for name in sparse for part in _PARTS}
        tensors = {name: file.read(name) for name in file.shapes if name not in parts}
        for name, (shape, form) in sparse.items():
            blocks = _read_blocks(file, name, shape, form)
            tensors |= {f"{name}.{part}": getattr(blocks, part) for part in _PARTS}
        network = dense_network(tensors, config)
        return network, checked_choice(network, config["choice"], str(file.path))
    except FileFormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"{file.path}: not a sparse model: {error}") from error


def dense_network(tensors: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]) -> QuantizedNetwork:
    """Return the network with its zeros.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Arrays by name, as `to_tensors` gives them.
    config : mapping
        Its configuration.
    """
    made = dict(tensors)
    for index, entry in config["sparse"].items():
        name, (shape, form) = f"{index}/kernel", _claim(entry)
        height, width = FORMS[form]
        values, indices, counts = (made.pop(f"{name}.{part}") for part in _PARTS)
        made[name] = Blocks(shape, values, indices, counts, width, height).kernel()
    return QuantizedNetwork.from_tensors(made, config["network"])


def _claim(entry: Any) -> tuple[tuple[int, int], str]:
    n_in, n_out = map(int, entry["shape"])
    if min(n_in, n_out) < 1 or entry["form"] not in FORMS:
        raise ValueError(f"a kernel of shape {entry['shape']} in the form {entry['form']!r}")
    return (n_in, n_out), entry["form"]


def _read_blocks(file: TensorFile, name: str, shape: tuple[int, int], form: str) -> Blocks:
    """Read a kernel's blocks; what does not fit together is refused."""
    height, width = FORMS[form]
    rows, columns = -(-shape[0] // height), -(-shape[1] // width)
    counts = file.read(f"{name}.counts", (columns,))
    indices = file.read(f"{name}.indices")
    values = file.read(f"{name}.values", (indices.size, height * width))
    if indices.dtype != index_type(rows) or counts.dtype != np.int32 or indices.ndim != 1:
        raise ValueError(f"{name}: indices are {indices.dtype} and counts {counts.dtype}")
    if counts.min() < 0 or counts.sum(dtype=np.int64) != indices.size:
        raise ValueError(f"{name}: its counts do not sum to its {indices.size} blocks")
    if values.dtype not in (np.float32, np.int8):
        raise ValueError(f"{name}: weights are {values.dtype}")
    places = np.repeat(np.arange(columns, dtype=np.int64) * rows, counts) + indices
    if indices.size and (int(indices.max()) >= rows or (np.diff(places) <= 0).any()):
        raise ValueError(f"{name}: its indices must rise from 0 to {rows - 1} within each {width} outputs")
    if not (np.isfinite(values) if values.dtype == np.float32 else values == values).all():
        raise ValueError(f"{name}: its weights are not all finite")
    return Blocks(shape, values, indices, counts, width, height)
