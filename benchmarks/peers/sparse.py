"""Networks most of whose weights are zero: nbdense's sparse models, and scipy's products of sparse matrices."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.int8 import Inference, quantized
from benchmarks.peers.ours import make_model


class NbdenseSparse(Inference):
    """nbdense, with a model that `sparsify` makes."""

    def __init__(self, threads: int) -> None:
        import nbdense as nb

        nb.set_num_threads(threads)

    def reset(self, weights: Weights) -> None:
        from nbdense.quant import sparsify

        self.predict = sparsify(make_model(narrowed(weights))).predict


class NbdenseInt8Sparse(NbdenseSparse):
    """The same of the quantized model."""

    def reset(self, weights: Weights) -> None:
        from nbdense.quant import sparsify

        self.predict = sparsify(quantized(narrowed(weights), "int8")).predict


def narrowed(weights: Weights) -> Weights:
    """Return weights without the hidden neurons whose weights and biases are zero, as `prune` removes neurons."""
    from nbdense.quant import prune

    dead = float(np.mean(~np.vstack(weights[0]).any(axis=0)))
    if not dead:
        return weights
    arrays = prune(make_model(weights), dead, structure="neuron", scope="layer").get_weights()
    return list(zip(arrays[::2], arrays[1::2], strict=True))


class ScipySparse(Inference):
    """scipy, with the kernels' transposes as CSR matrices; its products take one thread."""

    def __init__(self, threads: int) -> None:
        pass

    def reset(self, weights: Weights) -> None:
        from scipy.sparse import csr_matrix

        self._layers = [(csr_matrix(kernel.T), bias[:, None]) for kernel, bias in weights]

    def predict(self, x: Array) -> Array:
        columns = np.ascontiguousarray(x.T)
        for kernel, bias in self._layers[:-1]:
            columns = kernel @ columns
            columns += bias
            np.maximum(columns, 0, out=columns)
        kernel, bias = self._layers[-1]
        logits = kernel @ columns + bias
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        probabilities: Array = (logits / logits.sum(axis=0)).T
        return probabilities
