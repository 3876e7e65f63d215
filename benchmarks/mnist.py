"""MNIST from a folder of the four gzipped idx files, under the names that they are published under."""

from __future__ import annotations

import argparse
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

TEST, VALIDATION = "test", "validation"  # which rows errors are measured on

Inputs = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The rows that are trained on, and those that errors are measured on."""

    x: Inputs
    y: Classes
    x_test: Inputs
    y_test: Classes

    def validation(self, count: int = 10_000) -> Rows:
        """Return the rows with the last training rows in place of the test rows."""
        return Rows(self.x[:-count], self.y[:-count], self.x[-count:], self.y[-count:])


def _idx(path: Path) -> npt.NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of bytes")
    shape = np.frombuffer(content, ">u4", content[3], offset=4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _file(folder: str, part: str, what: str) -> Path:
    return Path(folder, f"{part}-{what}-ubyte.gz")


def folder(text: str) -> str:
    """Return an option's folder, in which the four files are: found missing now, not behind an hour's measurements."""
    wanted = [_file(text, part, what) for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    if missing := [path.name for path in wanted if not path.is_file()]:
        raise argparse.ArgumentTypeError(f"{text} lacks {', '.join(missing)}")
    return text


def read(folder: str) -> tuple[Inputs, Classes, Inputs, Classes]:
    """Read inputs in [0, 1] and classes for training (60,000 rows), and for testing (10,000)."""
    arrays = {}
    for part in ("train", "t10k"):
        images = _idx(_file(folder, part, "images-idx3"))
        arrays[part] = (
            images.reshape(len(images), -1).astype(np.float32) / np.float32(255),
            _idx(_file(folder, part, "labels-idx1")).astype(np.int64),
        )
    return *arrays["train"], *arrays["t10k"]
