"""The quantized model: what `quantize` gives, and what users predict with, save and export."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense._tables import Table, Tabular
from nbdense.compression import save_tensors
from nbdense.files import FileFormatError, TensorFile
from nbdense.losses import Loss
from nbdense.network import Network
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.program import Program
from nbdense.quant.model.rendering import report_plot, report_rows, report_table
from nbdense.quant.model.rows import FLOAT32, RowsOfData
from nbdense.quant.model.scoring import describe_compiled, loss_of, read_compiled, score
from nbdense.quant.model.summary import description, summary_table
from nbdense.quant.model.timing import microseconds_a_row
from nbdense.training.evaluation import numbers_of

KIND = "quantized model"  # what a file says that it holds


class QuantizedModel(Tabular):
    """A network in integers, with float in and float out.

    Parameters
    ----------
    network : QuantizedNetwork
        The integers and their scales.
    compiled : mapping, optional
        The loss and the metrics that `evaluate` gives.

    Attributes
    ----------
    compiled : dict
        The loss and the metrics that `evaluate` gives, as the float model was compiled; empty where it was not.
    float_network : Network or None
        What it was made of, where that was in this process: for the report's timings. Files do not hold it.
    """

    def __init__(self, network: QuantizedNetwork, compiled: Mapping[str, Any] | None = None) -> None:
        self._network = network
        self.compiled = dict(compiled or {})
        self.float_network: Network | None = None
        self._rows, self._program = RowsOfData(network), Program(network)

    @property
    def network(self) -> QuantizedNetwork:
        """The integers and their scales."""
        return self._network

    @property
    def loss(self) -> Loss | None:
        """The loss that the float model was compiled with; None where it was not, or a file only names it."""
        return loss_of(self.compiled)

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights, biases, scales and tables of the model."""
        return sum(tensor.nbytes for tensor in self.network.to_tensors()[0].values())

    @property
    def input_quantization(self) -> tuple[float, int] | None:
        """Scale and zero point of the integers that the input becomes; None where it is read as floats."""
        return self.network.input_format

    @property
    def output_quantization(self) -> tuple[float, int] | None:
        """Scale and zero point of what `predict_integers` returns; None where the last layer computes in float."""
        return self.network.formats[-1]

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

        They stand for (integer - zero_point) scale, both in `output_quantization`; a softmax in float is not in them.
        What becomes of an input x is x / scale, rounded half to even, plus zero_point, within the type's limits, by
        `input_quantization`: that is what files with integers at their ends take (``inference_input_type`` of
        `nbdense.to_onnx` and `nbdense.to_tflite`).

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

        Examples
        --------
        >>> from nbdense.layers import Dense, Input
        >>> from nbdense.models import Sequential
        >>> from nbdense.quant import quantize
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> q = quantize(Sequential([Input((4,)), Dense(8, "relu"), Dense(2)]), x)
        >>> scale, zero_point = q.output_quantization
        >>> bool(np.allclose((q.predict_integers(x) - np.float32(zero_point)) * scale, q.predict(x)))
        True
        """
        return self._rows.run(self._program.integers, self._rows.integer_dtype(), x, batch_size)

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
        *,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
    ) -> Any:
        """Return loss and metrics on a data set: those that the float model was compiled with, or others.

        The loss is of what `predict` returns, probabilities where the model ends in a softmax, and without penalties
        on weights. Of a loss or metric of one's own a file keeps the name; `load_model` takes ``custom_objects``.

        Parameters
        ----------
        x : array-like, (rows, *input_shape)
            As for `predict`.
        y : array-like
            Targets, as the float model's `evaluate` takes them.
        batch_size : int, optional
            Rows predicted at a time; see `predict`.
        verbose : int or str
            Taken for Keras's sake; nothing is printed.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        return_dict : bool
            Return a dict by name.
        loss : str, Loss or callable, optional
            Instead of the one that the float model was compiled with; as `Sequential.compile` takes it.
        metrics : iterable of str, Metric or callable, optional
            Instead of those that the float model was compiled with.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss alone if there are no metrics, else the loss and the metrics.

        Raises
        ------
        TypeError, ValueError
            If the float model was not compiled and there is no ``loss``, or data do not fit.
        """
        compiled = dict(self.compiled)
        if loss is not None:
            compiled = {"metrics": [], "weighted_metrics": [], **compiled, "loss": loss}
        if not compiled:
            raise ValueError(
                "evaluate: the model that this one was made of was not compiled; give loss=..., and metrics=[...], or "
                "compile that one first"
            )
        if metrics is not None:
            compiled |= {"metrics": list(metrics), "weighted_metrics": []}
        outputs = self.predict(x, batch_size)
        return numbers_of(score(compiled, outputs, y, sample_weight, self._rows.last), return_dict)

    def to_table(self) -> Table:
        return summary_table(self.network)

    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print the layers with the shapes of their outputs, bits, multiply-adds and bytes, and the totals.

        Parameters
        ----------
        print_fn : callable, optional
            Called with each line instead of ``print``.
        """
        for line in self.to_table().text().splitlines():
            (print if print_fn is None else print_fn)(line)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {description(self.network)}, {self.size_bytes:,} bytes>"

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
            "text"; "dict", of JSON's types; "rows", a dictionary a layer, all of the same keys, as
            ``pandas.DataFrame`` takes them; or "plot", a matplotlib figure.
        timings : bool
            Whether to measure.

        Returns
        -------
        str, dict, list of dict or matplotlib Figure

        Raises
        ------
        ValueError
            For another form, or if the model was not made by `quantize`.
        ImportError
            If matplotlib is not installed.
        """
        if form not in ("text", "dict", "rows", "plot"):
            raise ValueError(f"report: form must be 'text', 'dict', 'rows' or 'plot', got {form!r}")
        if not self.network.report:
            raise ValueError("report: this model was not made by quantize: nothing is known of its float model")
        made = copy.deepcopy(dict(self.network.report))
        if form == "plot":
            return report_plot(made)
        if form == "rows":
            return report_rows(made)
        if timings:
            made["timings"] = [self._timing(rows) for rows in (1, 256)]
        return report_table(made).text() if form == "text" else made

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
        if self.compiled:
            config["compiled"] = describe_compiled(self.compiled)
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
            compiled = read_compiled(file.path, file.config.get("compiled"))
            return cls(QuantizedNetwork.from_tensors(tensors, file.config), compiled)
        except FileFormatError:
            raise
        except ValueError as error:
            raise FileFormatError(f"{file.path}: {error}") from error
