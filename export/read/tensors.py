"""The tensors of an ONNX file that nobody vouches for: their claims are held against the bytes that are there."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nbdense.files import FileFormatError

# Sparse tensors may claim so many elements, or so many for each that they hold.
LEAST_DENSE, MOST_ZEROS = 2**20, 1000

Array = npt.NDArray[Any]

# Element types that are read, the bits of one, and the field that holds them where they are not raw bytes.
_BITS = {
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL), 8),
    **dict.fromkeys((TensorProto.INT16, TensorProto.UINT16, TensorProto.FLOAT16, TensorProto.BFLOAT16), 16),
    **dict.fromkeys((TensorProto.INT32, TensorProto.UINT32, TensorProto.FLOAT), 32),
    **dict.fromkeys((TensorProto.INT64, TensorProto.UINT64, TensorProto.DOUBLE), 64),
    **{kind: 4 for kind in (getattr(TensorProto, name, None) for name in ("INT4", "UINT4")) if kind is not None},
}
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, *_HALVES)


class Constants:
    """The tensors that a file holds, by name: checked when it is opened, read when they are first asked for.

    Parameters
    ----------
    name : str
        The file's name for errors.
    folder : Path or None
        Folder in which data beside the file may lie.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name, self._folder = name, folder
        self._protos: dict[str, TensorProto] = {}
        self._arrays: dict[str, Array] = {}
        self._beside: dict[Path, int] = {}
        self._claimed = self._dense = self._sparse = 0
        self.half = False  # whether some have but half of float32's digits
        self.four_bits: set[str] = set()  # those that are stored as such

    def __contains__(self, name: str) -> bool:
        return name in self._protos or name in self._arrays

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = self._read(self._protos[name])
        return self._arrays[name]

    def names(self) -> list[str]:
        """Return all names."""
        return [*self._protos, *(name for name in self._arrays if name not in self._protos)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, without reading it.

        Parameters
        ----------
        name : str
            The tensor's name.
        """
        return tuple(self._protos[name].dims) if name in self._protos else self._arrays[name].shape

    def add(self, name: str, tensor: TensorProto) -> None:
        """Add a tensor, after holding its claims against the bytes that are there.

        Parameters
        ----------
        name : str
            Its name in the nodes.
        tensor : TensorProto
            The tensor.

        Raises
        ------
        FileFormatError
            If the name is empty or taken, or its bytes are missing.
        """
        if not name or name in self:
            raise FileFormatError(f"{self._name}: there are two tensors named {name!r}, or one without a name")
        self._check(name, tensor)
        self._protos[name] = tensor
        if _BITS.get(tensor.data_type) == 4:
            self.four_bits.add(name)
        self.half |= tensor.data_type in _HALVES

    def add_array(self, name: str, array: Array) -> None:
        """Add an array that was made of the file.

        Parameters
        ----------
        name : str
            Its name in the nodes.
        array : ndarray
            Its values.

        Raises
        ------
        FileFormatError
            If the name is empty or taken.
        """
        if not name or name in self:
            raise FileFormatError(f"{self._name}: there are two tensors named {name!r}, or one without a name")
        self._arrays[name] = array

    def add_sparse(self, name: str, sparse: onnx.SparseTensorProto) -> None:
        """Add a sparse tensor, made dense.

        Parameters
        ----------
        name : str
            Its name in the nodes.
        sparse : SparseTensorProto
            Its values and where they stand.

        Raises
        ------
        FileFormatError
            If it claims far more elements than it has, or places outside its shape.
        """
        where, dims = f"{self._name}: sparse tensor {name!r}", tuple(sparse.dims)
        self._check(name, sparse.values)
        self._check(name, sparse.indices)
        values, places = self._read(sparse.values), self._read(sparse.indices).astype(np.int64)
        self._dense += 0 if any(n < 0 for n in dims) else math.prod(dims)
        self._sparse += values.size
        if any(n < 0 for n in dims) or self._dense > max(LEAST_DENSE, MOST_ZEROS * self._sparse):
            raise FileFormatError(f"{where} claims shape {list(dims)} and holds {values.size} values")
        if values.ndim != 1 or places.shape not in ((values.size,), (values.size, len(dims))):
            raise FileFormatError(f"{where}: its {values.size} values and {list(places.shape)} indices do not fit")
        bounds = math.prod(dims) if places.ndim == 1 else np.array(dims, np.int64)
        if (places < 0).any() or (places >= bounds).any():
            raise FileFormatError(f"{where} has values outside of its shape {list(dims)}")
        dense = np.zeros(dims, values.dtype)
        if places.ndim == 1:
            dense.reshape(-1)[places] = values
        else:
            dense[tuple(places.T)] = values
        self.add_array(name, dense)

    def _check(self, name: str, tensor: TensorProto) -> None:
        where = f"{self._name}: tensor {name!r}"
        if any(n < 0 for n in tensor.dims):
            raise FileFormatError(f"{where} has a negative dimension, {list(tensor.dims)}")
        elements = math.prod(tensor.dims)
        if tensor.data_type == TensorProto.STRING:
            if len(tensor.string_data) != elements:
                raise FileFormatError(f"{where} claims {elements} strings and holds {len(tensor.string_data)}")
            return
        if tensor.data_type not in _BITS:
            kinds = {number: kind for kind, number in TensorProto.DataType.items()}
            raise ValueError(
                f"{where} is of type {kinds.get(tensor.data_type, tensor.data_type)}, which from_onnx does not read"
            )
        wanted = (elements * _BITS[tensor.data_type] + 7) // 8
        if tensor.data_location == TensorProto.EXTERNAL:
            path, _ = self._locate(where, tensor, wanted)
            self._beside[path] = path.stat().st_size
            self._claimed += wanted
            if self._claimed > 2 * sum(self._beside.values()):  # the same bytes again and again
                raise FileFormatError(f"{where}: all tensors together claim more than the files beside the model hold")
        elif tensor.raw_data:
            if len(tensor.raw_data) != wanted:
                raise FileFormatError(
                    f"{where} claims shape {list(tensor.dims)}, {wanted} bytes, and holds {len(tensor.raw_data)}"
                )
        else:
            count = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
            if count != ((elements + 1) // 2 if _BITS[tensor.data_type] == 4 else elements):
                raise FileFormatError(f"{where} claims shape {list(tensor.dims)} and holds {count} numbers")

    def _locate(self, where: str, tensor: TensorProto, wanted: int) -> tuple[Path, int]:
        """Return file and offset of data beside the file: inside its folder, and long enough."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise FileFormatError(f"{where} lies in a file beside the model's ({location!r}): give from_onnx the path")
        paths = PurePosixPath(location), PureWindowsPath(location)
        outside = any(path.is_absolute() or path.drive or path.root or ".." in path.parts for path in paths)
        folder = self._folder.resolve()
        path = (folder / location).resolve() if location and not outside and "\0" not in location else folder
        if path == folder or not path.is_relative_to(folder):
            raise FileFormatError(f"{where}: its data lies at {location!r}, which is not inside the model's folder")
        if not path.is_file():
            raise FileFormatError(f"{where}: its data file {location!r} is missing")
        size = path.stat().st_size
        numbers = [entries.get("offset", "0"), entries.get("length", str(wanted))]
        if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
            raise FileFormatError(f"{where}: offset and length of its data must be whole numbers, got {numbers}")
        offset, length = map(int, numbers)
        if length != wanted or offset + length > size:
            raise FileFormatError(
                f"{where} claims {wanted} bytes, as {length} from {offset} on in {location!r}, which holds {size}"
            )
        return path, offset

    def _read(self, tensor: TensorProto) -> Array:
        """Return a tensor as an array; float16 and bfloat16 as float32."""
        if tensor.data_type == TensorProto.STRING:
            strings = [value.decode("utf-8", "replace") for value in tensor.string_data]
            return np.array(strings, object).reshape(tuple(tensor.dims))
        if tensor.data_location == TensorProto.EXTERNAL:
            wanted = (math.prod(tensor.dims) * _BITS[tensor.data_type] + 7) // 8
            path, offset = self._locate(f"{self._name}: tensor {tensor.name!r}", tensor, wanted)
            with path.open("rb") as file:
                file.seek(offset)
                content = file.read(wanted)
            filled = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=content)
        else:
            filled = tensor
        try:
            array = numpy_helper.to_array(filled)
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"{self._name}: tensor {tensor.name!r} cannot be read: {error}") from error
        if tensor.data_type in _HALVES:
            array = array.astype(np.float32)
        elif _BITS[tensor.data_type] == 4:
            array = array.astype(np.int8 if tensor.data_type == getattr(TensorProto, "INT4", None) else np.uint8)
        return array
