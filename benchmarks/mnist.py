"""MNIST from a folder of the four gzipped idx files, under the names that they are published under."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

Inputs = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


def _idx(path: Path) -> npt.NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of bytes")
    shape = np.frombuffer(content, ">u4", content[3], offset=4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def read(folder: str) -> tuple[Inputs, Classes, Inputs, Classes]:
    """Read inputs in [0, 1] and classes for training (60,000 rows), and for testing (10,000)."""
    arrays = {}
    for part in ("train", "t10k"):
        images = _idx(Path(folder, f"{part}-images-idx3-ubyte.gz"))
        arrays[part] = (
            images.reshape(len(images), -1).astype(np.float32) / np.float32(255),
            _idx(Path(folder, f"{part}-labels-idx1-ubyte.gz")).astype(np.int64),
        )
    return *arrays["train"], *arrays["t10k"]
