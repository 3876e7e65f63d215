"""The sparse model: what `sparsify` gives, and what users predict with and save."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbdense import backends
from nbdense._tables import Table
from nbdense.compression import save_tensors
from nbdense.files import FileFormatError, TensorFile
from nbdense.network import Network
from nbdense.quant.kernels.sparse_formats import NO_SPARSE_KERNELS
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.rendering import report_rows
from nbdense.quant.model.rows import RowsOfData
from nbdense.quant.model.scoring import describe_compiled, read_compiled
from nbdense.quant.sparse import files
from nbdense.quant.sparse.choosing import timings
from nbdense.quant.sparse.forms import Form
from nbdense.quant.sparse.programs import Limits, SparsePrograms, program_of
from nbdense.quant.sparse.report import layers_table, report_of, report_table

KIND = "sparse model"  # what a file says that it holds


class SparseModel(QuantizedModel):
    """A model whose dense layers are run without their zero weights, where that is faster.

    Parameters
    ----------
    network : QuantizedNetwork
        The network, with its zeros; in float throughout, or of a static quantization.
    choice : mapping of str to Form
        Forms of its dense layers, by name.
    compiled : mapping, optional
        The loss and the metrics that `evaluate` gives.
    limits : Limits, optional
        Rows a call for which the forms are used.

    Attributes
    ----------
    choice : dict of str to Form
        Forms of the dense layers, by name: `sparsify` takes it.
    limits : Limits
        Rows a call up to which the forms for few are used, and from which those for many; the outputs do not depend on
        it.
    compiled : dict
        The loss and the metrics that `evaluate` gives.
    float_network : Network or None
        What it was made of, where that was in this process: for the report's timings. Files do not hold it.
    """

    def __init__(
        self,
        network: QuantizedNetwork,
        choice: Mapping[str, Form],
        compiled: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.choice, self.limits = dict(choice), limits or Limits()
        self.float_network: Network | None = None
        self.compiled = dict(compiled or {})
        # The kernels with their zeros are not kept.
        self._tensors, self._config = files.to_tensors(network, choice)
        self._report = report_of(network, choice)
        self._rows = RowsOfData(network)
        self._program = SparsePrograms(network, choice, self.limits)  # type: ignore[assignment]
        self._report["model"] |= {**self._rows_of_forms, "memory_bytes": self._program.nbytes, "bytes": self.size_bytes}

    @property
    def _rows_of_forms(self) -> dict[str, int]:
        """The limits, as reports and files name them."""
        return {"few_rows": self.limits.few, "many_rows": self.limits.many}

    @property
    def network(self) -> QuantizedNetwork:
        """The network with its zeros, made anew each time: for exporters, `compare` and the like."""
        return files.dense_network(self._tensors, self._config)

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights, indices, biases, scales and tables, as files hold them."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def to_table(self) -> Table:
        return report_table(self._report)

    def report(self, form: str = "text", *, timings: bool = True) -> Any:
        """Report what each layer is run in, its sparsity, multiply-adds and bytes, and what the model costs.

        Of the model: its sparsity, weights that are not zero, multiply-adds a row that are computed, bytes in a file
        and in memory, and microseconds a row, measured now, beside the dense network's: by the same program with the
        zeros in it, and by the float model where it is at hand.

        Parameters
        ----------
        form : str
            "text"; "table", the layers alone; "dict", of JSON's types; or "rows", a dictionary a layer, as
            ``pandas.DataFrame`` takes them.
        timings : bool
            Whether to measure.

        Returns
        -------
        str, dict or list of dict

        Raises
        ------
        ValueError
            For another form.
        """
        if form not in ("text", "table", "dict", "rows"):
            raise ValueError(f"report: form must be 'text', 'table', 'dict' or 'rows', got {form!r}")
        made = {"layers": [dict(layer) for layer in self._report["layers"]], "model": dict(self._report["model"])}
        if form == "table":
            return layers_table(made).text()
        if form == "rows":
            return report_rows(made)
        if timings:
            dense = program_of(self.network, NO_SPARSE_KERNELS)
            made["timings"] = [self._timed(rows, dense) for rows in (1, 256)]
        return report_table(made).text() if form == "text" else made

    def _timed(self, rows: int, dense: Any) -> dict[str, Any]:
        network, n_in = self.float_network, int(np.prod(self._rows.input_shape))
        x = np.random.default_rng(0).standard_normal((rows, n_in), np.float32)
        calls: dict[str, Any] = {"us": lambda: self._program.values(x), "dense_us": lambda: dense.values(x)}
        if network is not None:
            calls["float_us"] = lambda: backends.current().predict(network, x)
        return {
            "rows": rows,
            **{name: 1e6 * float(np.median(seconds)) / rows for name, seconds in timings(calls).items()},
        }

    def save(self, path: str | os.PathLike[str], *, compressed: bool = False) -> None:
        """Write a file that `nbdense.models.load_model` reads: weights other than zero alone, and what runs them.

        Parameters
        ----------
        path : path
            The file (safetensors); replaced, in one step, if it exists.
        compressed : bool
            Whether the file is packed: smaller, and slower to load.
        """
        config = {**self._config, "compiled": describe_compiled(self.compiled), **self._rows_of_forms}
        save_tensors(path, KIND, config, self._tensors, compressed)

    @classmethod
    def from_file(cls, file: TensorFile) -> SparseModel:
        """Read the model in an opened file.

        Parameters
        ----------
        file : TensorFile
            A file of kind "sparse model".

        Raises
        ------
        FileFormatError
            If something is missing, of the wrong type or inconsistent.
        """
        if file.kind != KIND:
            raise FileFormatError(f"{file.path} holds a {file.kind!r}, not a {KIND!r}")
        network, choice = files.read(file)
        usual = Limits()
        limits = Limits(file.config.get("few_rows", usual.few), file.config.get("many_rows", usual.many))
        for name, rows in (("few_rows", limits.few), ("many_rows", limits.many)):
            if not isinstance(rows, int) or rows < 0:
                raise FileFormatError(f"{file.path}: {name} must be a whole number from 0, got {rows!r}")
        return cls(network, choice, read_compiled(file.path, file.config.get("compiled")), limits)
