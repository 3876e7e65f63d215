"""Compressed model files: a container in a safetensors file, for models of many zeros and few different weights.

The safetensors file is of kind "compressed" and has five tensors of bytes, each packed by LZMA2 (raw, without a header
of its own; a dictionary of 1 MiB) but for the last:

description
    JSON: the "kind" and "config" of the file that is in it, and "tensors", a list of [name, dtype, shape, form, ...] in
    the order in which the streams have them.
gaps
    For each element that is not zero, the number of zeros since the one before, a byte. 255 stands for 255 zeros and no
    element.
symbols
    Elements of one byte, or places in a table.
numbers
    Elements of several bytes, and tables: the first bytes of all, then the second bytes, and so on.
padding
    Zeros, as many as make the file large enough for what it claims to unpack to: a file may unpack to LARGEST_RATIO
    times its size at most, and a claim of more is refused before memory is taken for it.

Forms of a tensor, with what follows the form in its entry:

"nonzero", name
    True where the tensor of that name, which has come before, is not zero; it takes no bytes. Masks are this.
"dense", elements of the table
    All its elements in order.
"sparse", elements of the table, elements that are not zero, bytes in gaps
    Those that are not zero alone. A zero has no bit that is not: -0.0 is none.

A table of 0 elements is none: the elements themselves come. Of one element nothing more is said. Else "numbers" has the
table (of elements of one byte: "symbols"), and "symbols" each element's place in it. The metadata has "checksum", the
CRC-32 of the packed tensors in this order, and "sizes", what each unpacks to.

LZMA comes under the order-0 entropy of these streams, because it learns as it goes; Huffman codes do not reach that. Of
LeNet-300-100, pruned 20 times and quantized to 8 bits, in bytes:

=======  ======  ======  ======================  =======
stream   length  LZMA    Huffman, with its code  entropy
=======  ======  ======  ======================  =======
gaps     13,061   8,611                   9,108    8,854
symbols  12,920  11,461                  11,801   11,549
numbers   3,280   2,089                   2,844    2,579
=======  ======  ======  ======================  =======
"""

from __future__ import annotations

import json
import lzma
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.files import FileFormatError, TensorFile, tensor_bytes, write_model, write_tensors

KIND = "compressed"
LARGEST_RATIO = 4096  # of what a file unpacks to, to its size
_STREAMS = ("gaps", "symbols", "numbers")
_DICTIONARY = 2**20
_SKIP = 255
_LARGEST_TABLE = 256
_DENSE = 0.1  # share of zeros from which on they are left out
_DTYPES = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
}

Array = npt.NDArray[Any]


def compressed_bytes(kind: str, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> bytes:
    """Return the content of a compressed file.

    Parameters
    ----------
    kind : str
        What the file holds, such as "model".
    config : mapping
        Description, JSON-able.
    tensors : mapping of str to ndarray
        The arrays.
    """
    streams: dict[str, list[bytes]] = {name: [] for name in _STREAMS}
    entries = _entries({name: np.ascontiguousarray(value) for name, value in tensors.items()}, streams)
    described = json.dumps({"kind": kind, "config": config, "tensors": entries}, sort_keys=True, separators=(",", ":"))
    parts = {"description": described.encode()} | {name: b"".join(pieces) for name, pieces in streams.items()}
    packed = {name: _packed(content) for name, content in parts.items()}
    claimed = sum(value.nbytes for value in tensors.values()) + sum(map(len, parts.values()))
    size = sum(map(len, packed.values()))
    packed["padding"] = bytes(max(0, -(-claimed // LARGEST_RATIO) - size))
    sizes = {name: len(content) for name, content in parts.items()}
    return tensor_bytes(
        KIND,
        {"checksum": _checksum(packed), "sizes": sizes},
        {name: np.frombuffer(content, np.uint8) for name, content in packed.items()},
    )


def save_tensors(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Array],
    compressed: bool = False,
) -> None:
    """Write named arrays and a JSON-able description as one file, which `open_tensors` opens.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    kind : str
        What the file holds, such as "model".
    config : mapping
        Description, JSON-able.
    tensors : mapping of str to ndarray
        The arrays.
    compressed : bool
        Whether it is a compressed file.
    """
    if compressed:
        write_model(path, compressed_bytes(kind, config, tensors))
    else:
        write_tensors(path, kind, config, tensors)


def open_tensors(path: str | os.PathLike[str]) -> TensorFile:
    """Open a file of tensors, compressed or not: what is in it is read in the same way.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileFormatError
        If it is damaged, truncated, no file of ours, of a newer format, or claims to unpack to more than it may.
    """
    file = TensorFile(path)
    return CompressedFile(file) if file.kind == KIND else file


class CompressedFile(TensorFile):
    """A compressed file, opened: all its streams are unpacked, and arrays are made of them on demand.

    Parameters
    ----------
    file : TensorFile
        A file of kind "compressed".

    Raises
    ------
    FileFormatError
        If it is damaged, or claims to unpack to more than it may.
    """

    def __init__(self, file: TensorFile) -> None:
        self.path = file.path
        packed = {name: file.read(name).tobytes() for name in ("description", *_STREAMS, "padding")}
        try:
            if file.config["checksum"] != _checksum(packed):
                raise ValueError("its checksum is not that of its content")
            self._most = LARGEST_RATIO * (sum(map(len, packed.values())) + 1)
            sizes = {name: _count(file.config["sizes"][name]) for name in ("description", *_STREAMS)}
            self._claim(sum(sizes.values()))
            parts = {name: _unpacked(packed[name], size) for name, size in sizes.items()}
            described = json.loads(parts.pop("description"), object_hook=file.upgrade)
            self.kind, self.config = str(described["kind"]), dict(described["config"])
            self._entries = self._laid_out(described["tensors"], {name: len(part) for name, part in parts.items()})
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileFormatError(f"{self.path} is damaged: {error}") from error
        self._parts = parts
        self.shapes = {name: entry.shape for name, entry in self._entries.items()}

    def _claim(self, size: int) -> None:
        """Refuse to unpack more bytes than a file of this size may hold."""
        if size > self._most:
            raise ValueError(f"it claims to unpack to {size:,} bytes, of which its size allows {self._most:,}")

    def _laid_out(self, entries: Any, ends: dict[str, int]) -> dict[str, _Entry]:
        """Return the entries by name, with their places in the streams, which they must fill."""
        at, made = dict.fromkeys(_STREAMS, 0), dict[str, _Entry]()
        for fields in entries:
            entry = _Entry(fields, dict(at))
            if entry.form == "nonzero" and entry.of not in made:
                raise ValueError(f"tensor {entry.name!r} is a mask of {entry.of!r}, which does not come before it")
            for stream, size in entry.sizes().items():
                at[stream] += size
            made[entry.name] = entry
        self._claim(sum(math.prod(entry.shape) * entry.dtype.itemsize for entry in made.values()))
        if at != ends:
            raise ValueError(f"its tensors take {at} bytes, it has {ends}")
        return made

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        self.check(name, shape)
        entry = self._entries[name]
        try:
            if entry.form == "nonzero":
                return (self.read(entry.of, entry.shape) != 0).astype(entry.dtype)
            return entry.read(self._parts)
        except (ValueError, IndexError) as error:
            raise FileFormatError(f"{self.path}: tensor {name!r} cannot be read: {error}") from error


class _Entry:
    """A tensor's entry in the description, checked, and its places in the streams."""

    def __init__(self, fields: Any, at: dict[str, int]) -> None:
        name, dtype, shape, form, *numbers = fields
        if not isinstance(name, str) or dtype not in _DTYPES:
            raise ValueError(f"an entry of it is no tensor's: {name!r} of {dtype!r}")
        self.name, self.dtype, self.form, self.at = name, np.dtype(dtype), str(form), at
        self.shape = tuple(map(_count, shape))
        self.of, self.table, self.count, self.gaps = "", 0, math.prod(self.shape), 0
        if form == "nonzero":
            (self.of,) = map(str, numbers)
        elif form == "dense":
            (self.table,) = map(_count, numbers)
        elif form == "sparse":
            self.table, self.count, self.gaps = map(_count, numbers)
        else:
            raise ValueError(f"tensor {name!r} has an unknown form {form!r}")
        if self.table > _LARGEST_TABLE:
            raise ValueError(f"tensor {name!r} has a table of {self.table} elements")

    def sizes(self) -> dict[str, int]:
        """Return its bytes in each stream."""
        if self.form == "nonzero":
            return {}
        itemsize, whole = self.dtype.itemsize, self.table or self.count
        sizes = {"gaps": self.gaps, "symbols": self.count if self.table > 1 else 0, "numbers": 0}
        sizes["symbols" if itemsize == 1 else "numbers"] += whole * itemsize
        return sizes

    def read(self, parts: Mapping[str, bytes]) -> Array:
        """Return the array that the streams have of it."""
        at, out = dict(self.at), np.zeros(math.prod(self.shape), self.dtype)

        def take(stream: str, size: int) -> npt.NDArray[np.uint8]:
            begin = at[stream]
            at[stream] += size
            return np.frombuffer(parts[stream], np.uint8, size, begin)

        def elements(count: int) -> Array:
            itemsize = self.dtype.itemsize
            planes = take("symbols" if itemsize == 1 else "numbers", count * itemsize).reshape(itemsize, count)
            return np.ascontiguousarray(planes.T).view(self.dtype.newbyteorder("<")).reshape(count)

        values = elements(self.table or self.count)
        if self.table > 1:
            values = values[take("symbols", self.count)]
        if self.form == "dense":
            out[:] = values
        else:
            out[self._places(take("gaps", self.gaps))] = values
        return out.reshape(self.shape)

    def _places(self, gaps: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the places of the elements that are not zero."""
        ends = np.cumsum(gaps, dtype=np.int64)[gaps != _SKIP]
        places = ends + np.arange(len(ends))
        if len(places) != self.count:
            raise ValueError(f"it has {len(places)} gaps for {self.count} elements")
        return places


def _entries(tensors: Mapping[str, Array], streams: dict[str, list[bytes]]) -> list[list[Any]]:
    """Add tensors to the streams; return their entries."""
    entries: list[list[Any]] = []
    masked: dict[tuple[Any, ...], str] = {}  # by where a tensor is not zero
    for name, value in tensors.items():
        bits = value.reshape(-1).view(np.dtype(f"u{value.dtype.itemsize}"))
        nonzero = np.flatnonzero(bits)
        pattern = value.shape, zlib.crc32(nonzero.tobytes())
        entry = [name, value.dtype.name, list(value.shape)]
        of = masked.get(pattern)
        if value.dtype == np.bool_ and of is not None and np.array_equal(tensors[of] != 0, value):
            entries.append([*entry, "nonzero", of])
            continue
        masked.setdefault(pattern, name)
        sparse = bits.size - nonzero.size >= _DENSE * max(1, bits.size)
        kept = bits[nonzero] if sparse else bits
        table, places = np.unique(kept, return_inverse=True)
        size = _table_size(kept, table)
        if size:
            _add(table, streams)
            streams["symbols"].append(places.astype(np.uint8).tobytes() if size > 1 else b"")
        else:
            _add(kept, streams)
        if sparse:
            streams["gaps"].append(_gaps(nonzero))
            entries.append([*entry, "sparse", size, len(kept), len(streams["gaps"][-1])])
        else:
            entries.append([*entry, "dense", size])
    return entries


def _table_size(kept: Array, table: Array) -> int:
    """Return how many elements of a table are worth while: that of all that come, or none."""
    if len(table) == 1 and len(kept) > 1:
        return 1
    itemsize = kept.dtype.itemsize
    fits = itemsize > 1 and len(table) <= _LARGEST_TABLE
    return len(table) if fits and len(kept) + len(table) * itemsize < len(kept) * itemsize else 0


def _add(elements: Array, streams: dict[str, list[bytes]]) -> None:
    """Add elements, byte by byte, the lowest of all first."""
    itemsize = elements.dtype.itemsize
    little = np.ascontiguousarray(elements, elements.dtype.newbyteorder("<"))
    planes = little.view(np.uint8).reshape(-1, itemsize).T
    streams["symbols" if itemsize == 1 else "numbers"].append(planes.tobytes())


def _gaps(nonzero: npt.NDArray[np.int64]) -> bytes:
    """Return the bytes that say how many zeros are before each place."""
    zeros = np.diff(nonzero, prepend=-1) - 1
    skips, rest = zeros // _SKIP, zeros % _SKIP
    gaps = np.full(int(skips.sum()) + len(zeros), _SKIP, np.uint8)
    gaps[np.cumsum(skips + 1) - 1] = rest
    return gaps.tobytes()


def _filters(**options: int) -> list[dict[str, Any]]:
    return [{"id": lzma.FILTER_LZMA2, "dict_size": _DICTIONARY, **options}]


def _packed(content: bytes) -> bytes:
    """Pack a stream: with and without a look at the byte before, whichever is smaller."""
    options = ({"preset": 9 | lzma.PRESET_EXTREME, "lc": lc, "lp": 0, "pb": 0} for lc in (0, 3))
    return min((lzma.compress(content, lzma.FORMAT_RAW, filters=_filters(**o)) for o in options), key=len)


def _unpacked(packed: bytes, size: int) -> bytes:
    """Unpack a stream that has this size, and no byte more."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters())
    try:
        content = decoder.decompress(packed, size + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"a stream of it cannot be unpacked: {error}") from error
    if len(content) != size or decoder.unused_data:
        raise ValueError(f"a stream of it does not unpack to the {size:,} bytes that it should have")
    return content


def _checksum(packed: Mapping[str, bytes]) -> int:
    checksum = 0
    for content in packed.values():
        checksum = zlib.crc32(content, checksum)
    return checksum


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError(f"{value!r} is no count")
    return value
