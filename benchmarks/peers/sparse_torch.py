"""torch.sparse: the kernels' transposes in its compressed rows."""

from __future__ import annotations

import warnings

import torch

from benchmarks.cases import Weights
from benchmarks.peers import Array
from benchmarks.peers.int8 import Inference


class TorchSparse(Inference):
    """PyTorch, with CSR tensors, which it multiplies by MKL where it has that."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def reset(self, weights: Weights) -> None:
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        self._layers = [
            (torch.from_numpy(kernel.T.copy()).to_sparse_csr(), torch.from_numpy(bias)[:, None])
            for kernel, bias in weights
        ]

    def predict(self, x: Array) -> Array:
        with torch.inference_mode():
            columns = torch.from_numpy(x).T.contiguous()
            for kernel, bias in self._layers[:-1]:
                columns = torch.relu(torch.addmm(bias.expand(-1, columns.shape[1]), kernel, columns))
            kernel, bias = self._layers[-1]
            logits = torch.addmm(bias.expand(-1, columns.shape[1]), kernel, columns)
            probabilities: Array = torch.softmax(logits, 0).T.numpy()
        return probabilities
