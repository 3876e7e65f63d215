"""Sequential: a stack of layers that is compiled, fitted, evaluated, saved and loaded as in Keras."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from nbdense import _checks, losses, metrics, optimizers
from nbdense.callbacks import Callback, History
from nbdense.callbacks.base import CallbackList, callbacks_of, predict_in_batches
from nbdense.inspection.attribution import Importance, importance
from nbdense.inspection.diagnosis import Diagnosis, Thresholds, diagnose
from nbdense.layers.registry import register
from nbdense.models import derived
from nbdense.models.saving import load_weights, save_model, save_weights
from nbdense.models.stepped import SteppedStack
from nbdense.network import Network
from nbdense.training.evaluation import evaluate_on, numbers_of
from nbdense.training.feeding import feed_of, first_rows, input_batches, opened
from nbdense.training.loop import fit_epochs
from nbdense.training.preparation import Fit, prepare

EVALUATE_ROWS = 256  # at a time, if nothing else is asked for


@register
class Sequential(SteppedStack):
    """A feed-forward network: layers, one after the other.

    Parameters
    ----------
    layers : sequence of Layer, optional
        May begin with an Input; more can be added with `add`. A Sequential is a layer too.
    name : str, optional
        The model's name.
    dtype : {"float32", "float64"}
        Type of parameters and all computation.
    trainable : bool
        Whether the layers learn; False freezes all of them.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense.models import Sequential
    >>> from nbdense.layers import Dense, Input
    >>> model = Sequential([Input((2,)), Dense(8, "tanh"), Dense(1)])
    >>> model.compile("adam", loss="mse")
    >>> model.predict(np.zeros((3, 2), "float32")).shape
    (3, 1)
    """

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        name: str | None = None,
        dtype: str = "float32",
        trainable: bool = True,
    ) -> None:
        super().__init__(layers, name, dtype, trainable)
        self.stop_training = False
        self.history: History | None = None

    # -- training -----------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss | Callable[[Any, Any], Any] | None = None,
        metrics: Iterable[str | metrics.Metric] | None = None,
        loss_weights: None = None,
        weighted_metrics: Iterable[str | metrics.Metric] | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int | str = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Choose how the model learns.

        Parameters
        ----------
        optimizer : str or Optimizer
            A name takes the defaults.
        loss : str, Loss or callable
            Loss to minimise. A function of (y_true, y_pred) written with NumPy, such as
            ``lambda y_true, y_pred: np.mean(np.square(y_true - y_pred), axis=-1)``, is called once to record what it
            does to a row, and that is compiled.
        metrics : iterable of str, optional
            Metrics to report beside the loss, such as "accuracy".
        loss_weights : None
            Accepted for Keras's sake: there is one loss.
        weighted_metrics : iterable of str, optional
            Metrics that weigh rows by their sample and class weights.
        run_eagerly : False
            Accepted for Keras's sake: steps are compiled.
        steps_per_execution : int or "auto"
            Accepted for Keras's sake: as many steps run at once as fit into 0.1 s.
        jit_compile : bool or "auto"
            Accepted for Keras's sake: steps are compiled.
        auto_scale_loss : bool
            Accepted for Keras's sake: no dtype here needs a scaled loss.

        Notes
        -----
        Training begins anew: an optimizer that has been used forgets what it knew, its count of steps too.

        A loss that hardly suits the last layer's activation is warned of once, when it is first used.
        """
        if loss is None:
            raise ValueError(f"compile: name a loss; there are: {', '.join(sorted(losses.LOSSES))}")
        if run_eagerly:
            raise ValueError(
                "compile: run_eagerly must be False: steps are compiled; to see into them take forward, backward and "
                "apply_gradients, or diagnose"
            )
        if loss_weights is not None:
            raise ValueError(f"compile: loss_weights must be None, for there is one loss, got {loss_weights!r}")
        if steps_per_execution != "auto":
            _checks.positive_int("compile", "steps_per_execution", steps_per_execution)
        del jit_compile, auto_scale_loss
        reported, weighted = list(metrics or []), list(weighted_metrics or [])
        self._train.compile(optimizers.for_training(optimizer), losses.for_training(loss), reported, weighted)
        self._steps.forget()
        if self._train.built:
            self._apply_settings()

    def compile_like(self, other: Sequential) -> None:
        """Compile as another model is, if it is, with an optimizer of its own.

        Parameters
        ----------
        other : Sequential
            The other model.
        """
        if other.optimizer is not None and other.loss is not None:
            fresh, state = other.optimizer.fresh(), other.train_state
            self.compile(fresh, other.loss, list(state.metrics), weighted_metrics=list(state.weighted_metrics))

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Iterable[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | str | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Collection[int] = 1,
        **options: Any,
    ) -> History:
        """Train the model for some epochs.

        Parameters
        ----------
        x : array-like or sparse matrix, (rows, n_in), or iterable
            Inputs: any real dtype and memory layout, read where they lie (a memmap too); scipy's sparse ones become
            dense some batches at a time. Or batches, (x, y) or (x, y, sample_weight) each: a generator; what is
            iterated over anew each epoch, such as torch's DataLoader; or a function that returns one of these.
        y : array-like
            Targets, (rows, n_out), or (rows,) of class numbers for a sparse loss.
        batch_size : int
            Rows a step; None is 32. Batches of an iterable are steps as they come.
        epochs : int
            The number of the last epoch.
        verbose : {"auto", 0, 1, 2}
            1 (auto) draws a progress bar, 2 prints a line an epoch, 0 is silent.
        callbacks : iterable of Callback, optional
            Called between epochs.
        validation_split : float
            The share of rows, from the end and before shuffling, that is held out.
        validation_data : (x, y) or (x, y, sample_weight), or iterable, optional
            Evaluated after each epoch; goes before ``validation_split``.
        shuffle : bool
            A new order of rows each epoch; batches of an iterable come as they come.
        class_weight : mapping of int to float, or "balanced", optional
            A weight for each class, 1 where a mapping has none; balanced is rows / (classes * rows of the class), as in
            scikit-learn, where a row counts as often as its sample weight says.
        sample_weight : array-like, (rows,), optional
            A weight for each row; a class weight multiplies it.
        initial_epoch : int
            The number of the first epoch.
        steps_per_epoch : int, optional
            Steps in an epoch, where it is not all data; the next epoch goes on behind them.
        validation_steps : int, optional
            Batches of validation data that are evaluated, where it is not all of them.
        validation_batch_size : int, optional
            Rows of validation data at a time; by default ``batch_size`` with ``validation_steps``, and 256 without,
            where the result does not depend on it.
        validation_freq : int or collection of int
            Every how many epochs validation data are evaluated, or after which, counted from 1.
        **options
            Keras 2's workers, use_multiprocessing and max_queue_size are refused by name.

        Returns
        -------
        History
            Loss and metrics of each epoch.

        Raises
        ------
        ValueError, TypeError
            For data of a wrong shape, dtype or range, with NaN, infinity or masked elements in it; nothing has been
            changed then, but by earlier batches of an iterable.
        FloatingPointError
            If the loss is no longer finite; the weights are those of the last finite step.
        """
        _refuse_options("fit", options)
        batch = _checks.positive_int("fit", "batch_size", 32 if batch_size is None else batch_size)
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"fit: verbose must be 'auto', 0, 1 or 2, got {verbose!r}")
        epochs = _checks.whole_number("fit", "epochs", epochs)
        initial_epoch = _checks.whole_number("fit", "initial_epoch", initial_epoch)
        called = callbacks_of("fit", callbacks)
        if validation_batch_size is None:
            validation_batch_size = EVALUATE_ROWS if validation_steps is None else batch
        self._train.compiled("fit")
        learns_width = not self.built
        x = opened(x)
        self.build_for(first_rows(x))
        try:
            run = prepare(
                self.train_state,
                x,
                y,
                batch=batch,
                steps=_optional_steps("fit", "steps_per_epoch", steps_per_epoch),
                validation_batch=_checks.positive_int("fit", "validation_batch_size", validation_batch_size),
                validation_split=validation_split,
                validation_data=validation_data,
                validation_steps=_optional_steps("fit", "validation_steps", validation_steps),
                validation_freq=validation_freq,
                shuffle=bool(shuffle),
                class_weight=class_weight,
                sample_weight=sample_weight,
            )
        except Exception:
            if learns_width:
                self._drop_network()
            raise
        return self._fit(run, range(initial_epoch, epochs), 1 if verbose == "auto" else int(verbose), called)

    def _fit(self, run: Fit, epochs: range, verbose: int, callbacks: list[Callback]) -> History:
        """Train with what has been prepared."""
        history = self.history = History()
        params = {"epochs": epochs.stop, "steps": run.steps, "verbose": verbose}
        fit_epochs(run, epochs, CallbackList([*callbacks, history], self, params), verbose)
        return history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
        steps: int | None = None,
        callbacks: Iterable[Callback] | None = None,
        **options: Any,
    ) -> Any:
        """Return loss and metrics on a data set.

        Parameters
        ----------
        x, y : array-like
            As for `fit`: arrays, a sparse matrix and an array, or an iterable of batches.
        batch_size : int, optional
            Rows at a time; the result does not depend on it.
        verbose : {"auto", 0, 1, 2}
            Accepted for Keras's sake.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        return_dict : bool
            Return a dict by name.
        steps : int, optional
            Batches that are evaluated, where it is not all of them: of 32 rows, if ``batch_size`` does not say.
        callbacks : iterable of Callback, optional
            Called before and after (``on_test_begin``), and around batches where one wants it.
        **options
            As for `fit`.

        Returns
        -------
        float, list of float, or dict of str to float
            The loss alone if there are no metrics, else the loss and the metrics.
        """
        _refuse_options("evaluate", options)
        called = callbacks_of("evaluate", callbacks)
        x, steps = opened(x), _optional_steps("evaluate", "steps", steps)
        state = self._compiled_state(first_rows(x), "evaluate")
        if batch_size is None:
            batch_size = EVALUATE_ROWS if steps is None else 32
        rows = _checks.positive_int("evaluate", "batch_size", batch_size)
        feed = feed_of(state, x, y, sample_weight, rows, steps)
        hooks = CallbackList(called, self, {"steps": feed.steps, "verbose": verbose})
        hooks.call("on_test_begin")
        results = evaluate_on(state, feed, hooks)
        hooks.call("on_test_end", logs=results)
        return numbers_of(results, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: int | None = None,
        callbacks: Iterable[Callback] | None = None,
    ) -> npt.NDArray[Any]:
        """Return the outputs of the last layer.

        Parameters
        ----------
        x : array-like or sparse matrix, (rows, ..., n_in)
            Any real dtype and memory layout. A NaN reaches its own row's outputs only. Or an iterable of batches, as
            for `fit`.
        batch_size : int, optional
            Rows in a batch of an array, 32 by default, which ``steps`` counts and callbacks are called around; else any
            number of rows is worked through in blocks that fit the cache.
        verbose : {"auto", 0, 1, 2}
            Accepted for Keras's sake.
        steps : int, optional
            Batches to read at most.
        callbacks : iterable of Callback, optional
            Called before and after (``on_predict_begin``), and around batches where one wants it.

        Returns
        -------
        ndarray, (rows, ..., n_out), of the model's dtype
        """
        if callbacks is None:
            return self._outputs(x, batch_size, steps)
        called, outputs = callbacks_of("predict", callbacks), super().predict
        batch = _checks.positive_int("predict", "batch_size", 32 if batch_size is None else batch_size)
        x = opened(x)
        batches, count = input_batches(x, batch, _optional_steps("predict", "steps", steps))
        hooks = CallbackList(called, self, {"steps": count, "verbose": verbose})
        hooks.call("on_predict_begin")
        one_by_one = hooks.each_predict_batch
        results = predict_in_batches(outputs, batches, hooks) if one_by_one else outputs(x, batch, steps=steps)
        hooks.call("on_predict_end")
        return results

    # -- looking inside -----------------------------------------------------------------------------------------

    def diagnose(self, x: Any, y: Any, sample_weight: Any = None, thresholds: Thresholds | None = None) -> Diagnosis:
        """Measure activations and gradients of every layer in one training step that is not taken.

        Parameters
        ----------
        x, y : array-like
            As for `fit`; all rows are one batch, so some hundred are enough.
        sample_weight : array-like, (rows,), optional
            A weight for each row.
        thresholds : Thresholds, optional
            When there is a warning.

        Returns
        -------
        Diagnosis
            Printed, it is a table; ``warnings`` names what is wrong.
        """
        return diagnose(self, x, y, sample_weight, thresholds)

    def importance(
        self,
        x: Any,
        y: Any,
        metric: str | metrics.Metric | None = None,
        repeats: int = 5,
        seed: int = 0,
        sample_weight: Any = None,
    ) -> Importance:
        """Measure how much worse the model gets when a column of its inputs is shuffled.

        Parameters
        ----------
        x, y : array-like
            As for `evaluate`; rows of one axis.
        metric : str or Metric, optional
            What gets worse: a metric, or "loss"; by default the first metric that was compiled, or else the loss.
        repeats : int
            Shuffles of each column.
        seed : int
            Seed of the shuffles.
        sample_weight : array-like, (rows,), optional
            A weight for each row; it weighs losses, not metrics.

        Returns
        -------
        Importance
        """
        return importance(self, x, y, metric, repeats, seed, sample_weight)

    # -- models made from it ------------------------------------------------------------------------------------

    def upto(self, name: str) -> Sequential:
        """Return a model that ends with the layer of that name, with copies of the weights.

        Parameters
        ----------
        name : str
            The name of a layer of this model: of an autoencoder's bottleneck, for instance.
        """
        return derived.upto(self, name)

    def with_network(self, network: Network) -> Sequential:
        """Return a model like this one around other parameters; it starts with a fresh optimizer.

        Parameters
        ----------
        network : Network
            A network of the same layers.
        """
        other = derived.empty_like(self, self.name, [layer.copy() for layer in self._all])
        other._take_network(network)
        other.epochs_trained = self.epochs_trained
        other.compile_like(self)
        return other

    def fold_batch_normalization(self, *, at_input: bool = True) -> Sequential:
        """Return a model whose batch normalisations have gone into the dense layers beside them, where that can be.

        By the running statistics, a batch normalisation multiplies each unit by s = gamma / sqrt(variance + epsilon)
        and adds beta - s mean. So can the kernel and bias of a linear dense layer before it; or of a dense layer behind
        it, unless the mean is over 4 deviations away from zero, where digits would be lost. Nothing but dropout may
        stand in between (Jacob et al. 2018, section 3.2).

        Parameters
        ----------
        at_input : bool
            Whether one that reads the model's input, standardising raw data, may go too.

        Returns
        -------
        Sequential
            Not compiled. What could not be folded is still in it.
        """
        return derived.fold_batch_normalization(self, at_input)

    def save(self, path: str | os.PathLike[str], *, compressed: bool = False) -> None:
        """Write the model to one file: architecture, weights, and what resuming its training needs.

        Parameters
        ----------
        path : path
            Any suffix; the format is safetensors. Written atomically.
        compressed : bool
            Whether zeros are left out and the rest is packed: see `nbdense.compression`. It is loaded as it was.
        """
        save_model(self, path, compressed)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights alone to a file.

        Parameters
        ----------
        path : path
            Any suffix, such as ".weights.h5"; the format is safetensors.
        """
        save_weights(self, path)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Read weights that `save_weights` or `save` wrote, of a model of such layers; their names do not matter.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        nbdense.files.FileFormatError
            If the file is damaged, not ours, or has other tensors than this model; nothing has been changed then.
        """
        load_weights(self, path)


def _optional_steps(owner: str, name: str, value: int | None) -> int | None:
    return None if value is None else _checks.positive_int(owner, name, value)


def _refuse_options(owner: str, options: dict[str, Any]) -> None:
    """Raise for the first option: for what Keras 2 had, with what to do instead."""
    for name in options:
        if name in ("workers", "use_multiprocessing", "max_queue_size"):
            raise TypeError(
                f"{owner}: {name} is not taken: batches of an iterable are read in this thread; leave it out, or give "
                "an iterable that reads ahead itself, such as torch's DataLoader"
            )
        raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}")
