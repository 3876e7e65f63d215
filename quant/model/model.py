"""The quantized model: what `quantize` gives, and what users predict with, save and export."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense.compression import save_tensors
from nbdense.files import FileFormatError, TensorFile
from nbdense.network import Network
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.program import Program
from nbdense.quant.model.rendering import report_plot, report_text
from nbdense.quant.model.rows import FLOAT32, RowsOfData
from nbdense.quant.model.timing import microseconds_a_row

KIND = "quantized model"  # what a file says that it holds


class QuantizedModel:
    """A network in integers, with float in and float out.

    Parameters
    ----------
    network : QuantizedNetwork
        The integers and their scales.

    Attributes
    ----------
    float_network : Network or None
        What it was made of, where that was in this process: for the report's timings. Files do not hold it.
    """

    def __init__(self, network: QuantizedNetwork) -> None:
        self._network = network
        self.float_network: Network | None = None
        self._rows, self._program = RowsOfData(network), Program(network)

    @property
    def network(self) -> QuantizedNetwork:
        """The integers and their scales."""
        return self._network

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights, biases, scales and tables of the model."""
        return sum(tensor.nbytes for tensor in self.network.to_tensors()[0].values())

    def predict(self, x: Any, batch_size: int | None = None, verbose: int | str = 0) -> npt.NDArray[np.float32]:
        """Predict probabilities or values of each row.

        Parameters
        ----------
        x : array-like, (rows, *input_shape)
            Real numbers. With static quantization what lies outside the range that was calibrated saturates. A row that
            holds a NaN gives a row of NaN.
        batch_size : int, optional
            Rows taken at a time. The result does not depend on it, but with dynamic quantization, where what is taken
            at a time, by default everything, has one scale.
        verbose : int or str
            Taken for Keras's sake; nothing is printed.

        Returns
        -------
        ndarray of float32, (rows, *output_shape)

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no array of numbers of the right shape.
        """
        return self._rows.run(self._program.values, FLOAT32, x, batch_size)

    def predict_integers(self, x: Any, batch_size: int | None = None) -> npt.NDArray[Any]:
        """Predict the last layer's integers, before dequantization and softmax: bit for bit the same on every CPU.

        Parameters
        ----------
        x : array-like, (rows, *input_shape)
            As in `predict`, but a NaN is taken as zero.
        batch_size : int, optional
            Rows taken at a time; the result does not depend on it.

        Returns
        -------
        ndarray of int8 or uint8, (rows, *output_shape)

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no array of numbers of the right shape, or the last layer computes in float.
        """
        return self._rows.run(self._program.integers, self._rows.integer_dtype(), x, batch_size)

    def report(self, form: str = "text", *, timings: bool = True) -> Any:
        """Report each layer's ranges, scales, noise and bytes, and what the model costs.

        Signal-to-quantization-noise ratios are in decibels, of each kernel and, on up to 512 rows of the calibration
        data, of each layer's output against the float model's; beside it is the share of values that saturate. Of the
        model: bytes in flash (those of its arrays), the most bytes of activations at a time, multiply-adds a row,
        what ``accuracy_budget`` found, and microseconds a row, measured now, beside the float model's where it is at
        hand.

        Parameters
        ----------
        form : str
            "text"; "dict", of JSON's types; or "plot", a matplotlib figure.
        timings : bool
            Whether to measure.

        Returns
        -------
        str, dict or matplotlib Figure

        Raises
        ------
        ValueError
            For another form, or if the model was not made by `quantize`.
        ImportError
            If matplotlib is not installed.
        """
        if form not in ("text", "dict", "plot"):
            raise ValueError(f"report: form must be 'text', 'dict' or 'plot', got {form!r}")
        if not self.network.report:
            raise ValueError("report: this model was not made by quantize: nothing is known of its float model")
        made = copy.deepcopy(dict(self.network.report))
        if form == "plot":
            return report_plot(made)
        if timings:
            made["timings"] = [self._timing(rows) for rows in (1, 256)]
        return report_text(made) if form == "text" else made

    def _timing(self, rows: int) -> dict[str, Any]:
        shape, network = self.network.input_shape, self.float_network
        timing = {"rows": rows, "us": microseconds_a_row(self.predict, shape, rows)}
        if network is not None:
            flat = np.zeros((rows, network.n_in), network.dtype)
            timing["float_us"] = microseconds_a_row(lambda _: backends.current().predict(network, flat), shape, rows)
        return timing

    def save(self, path: str | os.PathLike[str], *, compressed: bool = False) -> None:
        """Write a file that `nbdense.models.load_model` reads: integers stay integers.

        Parameters
        ----------
        path : path
            The file (safetensors); replaced, in one step, if it exists.
        compressed : bool
            Whether zeros are left out and the rest is packed: see `nbdense.compression`. It is loaded as it was.
        """
        tensors, config = self.network.to_tensors()
        save_tensors(path, KIND, config, tensors, compressed)

    @classmethod
    def from_file(cls, file: TensorFile) -> QuantizedModel:
        """Read the model in an opened file.

        Parameters
        ----------
        file : TensorFile
            A file of kind "quantized model".

        Raises
        ------
        FileFormatError
            If something is missing, of the wrong type or inconsistent.
        """
        if file.kind != KIND:
            raise FileFormatError(f"{file.path} holds a {file.kind!r}, not a {KIND!r}")
        try:
            tensors = {name: file.read(name) for name in file.shapes}
            return cls(QuantizedNetwork.from_tensors(tensors, file.config))
        except FileFormatError:
            raise
        except ValueError as error:
            raise FileFormatError(f"{file.path}: {error}") from error
