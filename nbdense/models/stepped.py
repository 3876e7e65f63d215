"""A stack of layers with its outputs, and steps that are taken one by one: one's own training loop, single batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import _checks, backends
from nbdense.backends.base import Backend, Predictor
from nbdense.models.stack import LayerStack
from nbdense.network import Network
from nbdense.training.evaluation import numbers_of
from nbdense.training.feeding import Stream, opened
from nbdense.training.sparse_rows import is_sparse, pieces, readable
from nbdense.training.state import TrainState
from nbdense.training.stepping import Steps

_BLOCK = 8192  # rows that predict converts at a time where they are not ready to read


class SteppedStack(LayerStack):
    """A stack of layers whose steps are taken one by one: `Sequential` without `fit` and what is made of it.

    Parameters
    ----------
    layers : sequence of Layer, optional
        As for `LayerStack`.
    name : str, optional
        The model's name.
    dtype : {"float32", "float64"}
        Type of parameters and all computation.
    trainable : bool
        Whether the layers learn; False freezes all of them.
    """

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        name: str | None = None,
        dtype: str = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(layers, name, dtype, trainable)
        self._steps = Steps(self._train)
        self._predictor: Predictor | None = None
        self._predicts_on: Backend | None = None  # the device that it is for

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is this process's, and prepared again when it is needed."""
        return {**self.__dict__, "_predictor": None, "_predicts_on": None}

    def _take_network(self, network: Network) -> None:
        super()._take_network(network)
        self._steps.forget()
        self._predictor = self._predicts_on = None

    def _compiled_state(self, x: Any, caller: str = "") -> TrainState:
        """Return the state of training of a model that must be compiled; it is built for the data if need be."""
        self._train.compiled(caller)
        self.build_for(x)
        return self.train_state

    def __call__(self, x: Any, training: bool | None = False) -> npt.NDArray[Any]:
        """Return the outputs of a batch.

        Parameters
        ----------
        x : array-like, (rows, ..., n_in)
            All rows are one batch.
        training : bool, optional
            Whether dropout drops, other elements at each call, and batch normalisation takes the batch's statistics
            and moves its own.

        Returns
        -------
        ndarray, (rows, ..., n_out)
        """
        if not training:
            return self.predict(x)
        self.build_for(x)
        _ = self.network
        return self._steps.call(x, True)

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: int | str = 0, steps: int | None = None
    ) -> npt.NDArray[Any]:
        """Return the outputs of the last layer.

        Parameters
        ----------
        x : array-like or sparse matrix, (rows, ..., n_in)
            Any real dtype and memory layout. A NaN reaches its own row's outputs only. Or an iterable of batches, as
            for `Sequential.fit`.
        batch_size : int, optional
            Accepted for Keras's sake; any number of rows is worked through in blocks that fit the cache.
        verbose : {"auto", 0, 1, 2}
            Accepted for Keras's sake.
        steps : int, optional
            Batches to read at most: of ``batch_size`` (by default 32) rows, where ``x`` is an array.

        Returns
        -------
        ndarray, (rows, ..., n_out), of the model's dtype
        """
        return self._outputs(x, batch_size, steps)

    def _outputs(self, x: Any, batch_size: int | None = None, steps: int | None = None) -> npt.NDArray[Any]:
        """Return the outputs of rows: at once where they lie as they are read."""
        if batch_size is not None:
            batch_size = _checks.positive_int("predict", "batch_size", batch_size)
        if (  # carray: C-ordered, aligned and writable
            type(x) is np.ndarray
            and steps is None
            and self._train.built
            and x.dtype == self.dtype
            and x.ndim == 2
            and x.shape[1:] == self._train.network.input_shape
            and x.flags.carray
        ):
            return self._shaped(self._prepared().predict(x))
        if steps is not None:
            steps = _checks.positive_int("predict", "steps", steps)
        batches = opened(x)
        if isinstance(batches, Stream):
            return np.concatenate([self._converted(batch[0]) for batch in itertools.islice(batches, steps)])
        if steps is not None:
            x = readable("x", x)[: steps * (batch_size or 32)]
        return self._converted(x)

    def _converted(self, x: Any) -> npt.NDArray[Any]:
        """Return the outputs of rows that have to be checked and converted first."""
        self.build_for(x)
        network = self.network
        predictor = self._prepared()
        x = self._train.sparse_inputs(x) if is_sparse(x) else self._train.inputs(x)
        out, first = np.empty((x.shape[0], network.n_out), self.dtype), 0
        for piece in pieces(x, self.dtype, _BLOCK):
            out[first : first + len(piece)] = predictor.predict(piece)
            first += len(piece)
        return self._shaped(out)

    def _prepared(self) -> Predictor:
        device = backends.current()
        if self._predictor is None or self._predicts_on is not device:
            self._predictor, self._predicts_on = device.predictor(self.network), device
        return self._predictor

    def _shaped(self, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        shape = self._train.network.output_shape
        return out if len(shape) == 1 else out.reshape(-1, *shape)

    # -- single batches -----------------------------------------------------------------------------------------

    def predict_on_batch(self, x: Any) -> npt.NDArray[Any]:
        """Return the outputs of the last layer: `predict` of one batch.

        Parameters
        ----------
        x : array-like, (rows, ..., n_in)
            All rows are one batch.

        Returns
        -------
        ndarray, (rows, ..., n_out)
        """
        return self.predict(x)

    def test_on_batch(self, x: Any, y: Any, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Return loss and metrics of one batch.

        Parameters
        ----------
        x, y : array-like
            As for `fit`; all rows are one batch.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
        """
        self._compiled_state(x, "test_on_batch")
        return numbers_of(self._steps.test_on_batch(x, y, sample_weight), return_dict)

    def train_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Take one step on one batch.

        Parameters
        ----------
        x, y : array-like
            As for `fit`; all rows are one batch.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        class_weight : mapping of int to float, or "balanced", optional
            A weight for each class, as for `fit`.
        return_dict : bool
            Return a dict by name.

        Returns
        -------
        float, list of float, or dict of str to float
            The batch's loss and metrics, as they were before the step.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; no weight has been changed by this step.

        Notes
        -----
        Threads that take steps of one model take turns, and wait for the end of a `fit`.
        """
        self._compiled_state(x, "train_on_batch")
        return numbers_of(self._steps.train_on_batch(x, y, sample_weight, class_weight), return_dict)

    def train_step(self, batch_size: int) -> Callable[..., float]:
        """Return a function that takes one step on one batch, for loops of your own that take many.

        Parameters
        ----------
        batch_size : int
            Rows in a batch: memory is made for so many. Batches of others are taken too.

        Returns
        -------
        callable
            ``step(x, y, sample_weight=None)``: `train_on_batch` without metrics. It returns the loss before the step, a
            float, and costs hardly more than a step of `fit` where the arrays are C-ordered and of shapes and dtypes
            that have come before.

        Examples
        --------
        >>> import numpy as np
        >>> from nbdense.models import Sequential
        >>> from nbdense.layers import Dense, Input
        >>> model = Sequential([Input((2,)), Dense(1, kernel_initializer="zeros")])
        >>> model.compile("sgd", loss="mse")
        >>> step = model.train_step(3)
        >>> step(np.ones((3, 2), "float32"), np.ones((3, 1), "float32"))
        1.0
        """
        rows = _checks.positive_int("train_step", "batch_size", batch_size)
        self._train.compiled("train_step")
        _ = self.network
        self._steps.make_room(rows)
        return self._steps.learn

    def learn_one(self, x: Any, y: Any, sample_weight: float | None = None) -> float:
        """Take one step on one row, as data come in; return its loss before the step.

        Parameters
        ----------
        x : array-like, (..., n_in)
            One row of inputs.
        y : number or array-like
            Its target: a row of outputs, a number where there is one output, a class number for a sparse loss.
        sample_weight : float, optional
            Its weight.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; no weight has been changed by this step.
        """
        x = _checks.array_of("x", x)[np.newaxis]
        self._compiled_state(x, "learn_one")
        weights = None if sample_weight is None else np.array([sample_weight])
        return self._steps.learn(x, _checks.array_of("y", y)[np.newaxis], weights)

    def predict_one(self, x: Any) -> npt.NDArray[Any]:
        """Return the outputs of one row.

        Parameters
        ----------
        x : array-like, (..., n_in)
            One row of inputs.

        Returns
        -------
        ndarray, (..., n_out)
        """
        row = _checks.numbers_of("x", x)
        if row.dtype != self.dtype:
            row = _checks.matrix_of(row, self.dtype)
        outputs: npt.NDArray[Any] = self._outputs(row[np.newaxis])[0]
        return outputs

    # -- single steps -------------------------------------------------------------------------------------------

    def forward(self, x: Any, training: bool = False) -> npt.NDArray[Any]:
        """Return the outputs of a batch, and keep what one `backward` with the same weights needs.

        Parameters
        ----------
        x : array-like, (rows, ..., n_in)
            All rows are one batch.
        training : bool
            Whether dropout drops, and batch normalisation takes the batch's statistics.

        Returns
        -------
        ndarray, (rows, ..., n_out)
        """
        self.build_for(x)
        _ = self.network  # built on first use
        return self._steps.forward(x, training)

    def backward(self, grad_output: Any) -> npt.NDArray[Any]:
        """Compute the gradients of all trainable parameters from that with respect to the last `forward`'s outputs.

        They replace those that were there; `gradients` shows them, `apply_gradients` takes the step. The slopes of
        regularizers are in them; weights that are pruned have none.

        The weights must be those of the forward: after a step of any kind or `set_weights`, call `forward` again. That
        they were written to through the views of `parameters` goes unnoticed, and mixes old activations with new
        weights.

        Parameters
        ----------
        grad_output : array-like, of the outputs' shape
            Derivative of a number with respect to each output.

        Returns
        -------
        ndarray, of the inputs' shape
            Derivative of that number with respect to each input.

        Raises
        ------
        RuntimeError
            If there is no forward for it, or the weights have been changed since.
        ValueError
            If ``grad_output`` has not the outputs' shape.
        """
        _ = self.network
        return self._steps.backward(grad_output)

    def apply_gradients(self) -> None:
        """Take the optimizer's step with what is in `gradients`: what `backward` left there, or you wrote there.

        As in a step of `fit`, the gradients are clipped, as `gradients` shows behind it, and the weights decayed as the
        optimizer says; pruned weights stay zero. For larger batches than fit into memory, add up the gradients of
        several `backward`, and write the sum or mean to the views before this. Each has the slopes of the regularizers
        in it, so their mean has these once.

        The running statistics of batch normalisation move here too, if the last forward was for training.
        """
        self._steps.apply_gradients()
