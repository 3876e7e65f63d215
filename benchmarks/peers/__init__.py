"""The libraries that are timed, one row each. To add a peer is to write its class and add its row.

A class is imported in its own worker process only, so that no library is loaded beside another.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.cases import Weights

Array = npt.NDArray[Any]


class Peer(Protocol):
    """Protocol of a library's worker. ``epochs`` and ``predict`` are timed; they return when the work is done."""

    def __init__(self, threads: int) -> None: ...

    def build(self, x: Array, y: Array, batch: int, weights: Weights) -> None:
        """Make the model, and put the data where the library wants it: that is not timed."""

    def reset(self, weights: Weights) -> None:
        """Go back to these weights, so that every turn times the same steps, and build nothing anew."""

    def step(self) -> float:
        """Take one step of training on the first batch in its order; return its loss before the step."""

    def epochs(self, count: int) -> None:
        """Train ``count`` epochs, each in a new order."""

    def predict(self, x: npt.NDArray[np.float32]) -> Array:
        """Return probabilities (rows, classes), a NumPy array."""

    def product(self, a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> Callable[[], object]:
        """Return a call that multiplies two matrices, where the row says that it ``multiplies``."""


@dataclass(frozen=True)
class Row:
    """A library: its name in tables, its class, what it needs installed, and what it is timed at.

    ``same_steps`` is False where a model of two classes has other parameters than two outputs'. ``int8`` is timed
    beside networks in integers: those themselves, and what they are to be faster than. ``multiplies`` is True where it
    has a product of matrices to offer, which the limit has to be as fast as. ``loop`` is timed as a loop of one's own,
    in which each batch is a call from Python, or is what such loops are held against; ``by_row`` takes one row a call.
    ``sparse`` is timed on networks most of whose weights are zero.
    """

    title: str
    where: str
    package: str
    training: bool = True
    inference: bool = True
    same_steps: bool = True
    int8: bool = False
    multiplies: bool = False
    loop: bool = False
    by_row: bool = False
    sparse: bool = False

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def load(self, threads: int) -> Peer:
        """Make the peer; only in its own worker."""
        module, _, name = self.where.partition(":")
        peer: Peer = getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)(threads)
        return peer


def _in_integers(title: str, name: str, package: str, sparse: bool = False) -> Row:
    return Row(title, f"int8:{name}", package, training=False, inference=False, int8=True, sparse=sparse)


def _sparse(title: str, where: str, package: str) -> Row:
    return Row(title, where, package, training=False, inference=False, sparse=True)


def _loop(title: str, where: str, package: str, by_row: bool = False) -> Row:
    return Row(title, where, package, training=False, inference=False, loop=True, by_row=by_row)


PEERS = {
    "nbdense": Row("nbdense", "ours:Nbdense", "nbdense", int8=True, loop=True, sparse=True),
    "torch": Row("torch eager", "pytorch:Torch", "torch", multiplies=True),
    "torch_fused": Row("torch, fused Adam", "pytorch:TorchFused", "torch", inference=False),
    "jax": Row("JAX, jitted", "jax_scan:Jax", "jax", multiplies=True),
    "keras": Row("Keras on JAX", "keras_fit:Keras", "keras", inference=False),
    "sklearn": Row("scikit-learn", "scikit_learn:Sklearn", "sklearn", same_steps=False),
    "onnxruntime": Row("onnxruntime", "onnx_runtime:OnnxRuntime", "onnxruntime", training=False, sparse=True),
    "numpy": Row("NumPy", "plain_numpy:PlainNumpy", "numpy", training=False, multiplies=True),
    "nbdense_int8": _in_integers("nbdense int8", "NbdenseInt8", "nbdense", sparse=True),
    "onnxruntime_int8": _in_integers("onnxruntime int8", "OnnxRuntimeInt8", "onnxruntime"),
    "onnxruntime_uint8": _in_integers("onnxruntime uint8", "OnnxRuntimeUint8", "onnxruntime"),
    "nbdense_sparse": _sparse("nbdense sparse", "sparse:NbdenseSparse", "nbdense"),
    "nbdense_int8_sparse": _sparse("nbdense int8 sparse", "sparse:NbdenseInt8Sparse", "nbdense"),
    "scipy_sparse": _sparse("scipy.sparse", "sparse:ScipySparse", "scipy"),
    "torch_sparse": _sparse("torch.sparse", "sparse_torch:TorchSparse", "torch"),
    "nbdense_train_step": _loop("train_step", "own_loops:TrainStep", "nbdense"),
    "nbdense_train_on_batch": _loop("train_on_batch", "own_loops:TrainOnBatch", "nbdense"),
    "nbdense_own_loop": _loop("forward, backward, apply_gradients", "own_loops:OwnLoop", "nbdense"),
    "nbdense_learn_one": _loop("learn_one", "own_loops:LearnOne", "nbdense", by_row=True),
    "torch_loop": _loop("torch eager", "own_loops_torch:TorchLoop", "torch"),
    "torch_fused_loop": _loop("torch, fused Adam", "own_loops_torch:TorchFusedLoop", "torch"),
    "jax_loop": _loop("JAX, jitted step", "own_loops_jax:JaxLoop", "jax"),
}
