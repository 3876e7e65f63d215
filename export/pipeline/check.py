"""The comparison of what onnxruntime computes with what a Pipeline predicts.

What counts is what the user gets: the pipeline's predictions on his rows as they are, and the file's on the same rows
in the types of its inputs. Nothing is forgiven for what rounding the rows does to them:

- A label may differ only where two probabilities are closer than rounding inside of the network can tell: 1e-5, or four
  times what float32 costs the network on exact features, 1e-3 at most.
- An output may be off by the same share of its largest value (of 1, for probabilities), or by 1e-3 of its standard
  deviation over the rows.
- Of a network in integers a tenth of the rows may be off by up to 0.05: the last bit of a feature decides on which side
  of a half an integer falls.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nbdense.export.graph.checks import serialize
from nbdense.export.networks import has_integers
from nbdense.export.pipeline.rows import GraphInput, Rows
from nbdense.export.verify.integers import FLIPPED
from nbdense.export.verify.runtime import kernels_saturate, session_options
from nbdense.export.verify.tolerance import TOLERANCE, cost_of_a_bit, cost_of_float32, distances
from nbdense.export.verify.verification import BATCH_SIZES
from nbdense.network import Network

LARGEST_ROUNDING = 1e-3  # of the network's; a bound that grows with the damage would find none
SHARE_OF_DEVIATION = 1e-3  # of an output's standard deviation: one part in a million of its variance


class Reference:
    """Predictions of a pipeline on its rows.

    Parameters
    ----------
    pipeline : Pipeline or estimator
        Fitted.
    estimator : MLPClassifier or MLPRegressor
        Its last step.
    rows : Rows
        The user's rows.

    Raises
    ------
    ValueError
        If the pipeline does not take them.
    """

    def __init__(self, pipeline: Any, estimator: Any, rows: Rows) -> None:
        self.pipeline, self.estimator, self.rows = pipeline, estimator, rows
        self.classifies = hasattr(estimator, "classes_")
        self._network = estimator.model_.network
        self._has_integers = has_integers(self._network)
        try:
            self.outputs, self.labels = self._predicted(rows.data)
        except ValueError as error:
            raise ValueError(
                f"the pipeline does not take these rows, so that nothing can be compared; give other X: {error}"
            ) from error

    def _predicted(self, data: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Return the pipeline's outputs of rows, and a classifier's labels."""
        with _any_feature_names():
            if self.classifies:
                return _as_rows(self.pipeline.predict_proba(data)), _onnx_labels(self.pipeline.predict(data))
            return _as_rows(self.pipeline.predict(data)), None

    def check(self, model: onnx.ModelProto, inputs: tuple[GraphInput, ...]) -> None:
        """Raise a RuntimeError unless onnxruntime computes the same, at all batch sizes.

        Parameters
        ----------
        model : ModelProto
            The exported pipeline.
        inputs : tuple of GraphInput
            Its inputs.

        Raises
        ------
        RuntimeError
            If it computes something else, of how many rows, or cannot load or run the model.
        """
        run = _session(model)
        everything = len(self.outputs)
        for size in dict.fromkeys((everything, *BATCH_SIZES)):
            index = np.arange(size) % everything
            computed = run(self.rows.feed(inputs, index))
            if self._has_integers and kernels_saturate():
                continue  # what onnxruntime adds up is not what stands in the file
            if self._problem(computed, index, TOLERANCE) and (
                problem := self._problem(computed, index, self._rounding)
            ):
                raise RuntimeError(f"onnxruntime does not compute what the pipeline predicts: {problem}")

    @cached_property
    def _rounding(self) -> float:
        """Return the share of an output's largest value (or of 1) that rounding inside of the network may change."""
        if self._has_integers:
            return FLIPPED[1]
        features = self.rows.data
        if len(getattr(self.pipeline, "steps", ())) > 1:
            with _any_feature_names():
                features = self.pipeline[:-1].transform(features)
        features = features.toarray() if hasattr(features, "toarray") else features
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(features, np.float32)
        is_float = isinstance(self._network, Network)
        cost = cost_of_float32(self._network, features) if is_float else cost_of_a_bit(self.estimator.model_, features)
        return float(np.clip(cost, TOLERANCE, LARGEST_ROUNDING)) if np.isfinite(cost) else TOLERANCE

    def _expected(self, index: npt.NDArray[np.intp]) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Return the outputs and labels of some rows, predicted together where one's depend on the others."""
        if getattr(self._network, "scheme", "") == "dynamic":
            data = self.rows.data
            return self._predicted(data.iloc[index] if hasattr(data, "iloc") else data[index])
        return self.outputs[index], None if self.labels is None else self.labels[index]

    @cached_property
    def _scales(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return each output's largest value, 1 for probabilities, and its standard deviation over the rows."""
        finite = np.where(np.isfinite(self.outputs), self.outputs, 0.0).astype(np.float64)
        largest = np.ones(finite.shape[1]) if self.classifies else np.abs(finite).max(axis=0)
        return largest, finite.std(axis=0)

    def _problem(self, computed: list[npt.NDArray[Any]], index: npt.NDArray[np.intp], tolerance: float) -> str:
        """Say how many of these rows onnxruntime gets wrong, by a bound on rounding; "" if none."""
        expected, labels = self._expected(index)
        values = computed[-1]
        of = f"of {len(index)} rows"
        if values.shape != expected.shape:
            return f"{of} it gives outputs of shape {values.shape}, not {expected.shape}"
        largest, deviation = self._scales
        distance = distances(expected, values)
        off = (distance > np.maximum(tolerance * largest, SHARE_OF_DEVIATION * deviation)).any(axis=1)
        problems = [f"{off.sum()} {of} have other outputs, by up to {distance.max():.3g}"] if off.any() else []
        flipped = (distance > TOLERANCE * largest).any(axis=1).sum()
        if self._has_integers and flipped > max(1, FLIPPED[0] * len(index)):
            problems.append(f"{flipped} {of} come out otherwise than in integers")
        if labels is not None:
            if computed[0].shape != labels.shape:
                return f"{of} it gives labels of shape {computed[0].shape}, not {labels.shape}"
            unsure = _unsure(expected, tolerance, self.estimator._multilabel)
            wrong = ((computed[0] != labels) & ~unsure).reshape(len(index), -1).any(axis=1)
            if wrong.any():
                problems.insert(0, f"{wrong.sum()} {of} get another label")
        return ", and ".join(problems)


@contextmanager
def _any_feature_names() -> Iterator[None]:
    """Let rows have names where those of the fit had none, and the other way round."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X (has|does not have valid) feature names", UserWarning)
        yield


def _as_rows(outputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return outputs.reshape(len(outputs), -1)


def _onnx_labels(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return labels.astype(np.int64) if labels.dtype.kind in "biuf" else labels.astype(object)


def _unsure(probabilities: npt.NDArray[Any], tolerance: float, multilabel: bool) -> npt.NDArray[np.bool_]:
    """Return whether rounding may change each row's label."""
    if multilabel:
        return np.asarray(np.abs(probabilities - 0.5) <= tolerance)
    largest = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(largest[:, 1] - largest[:, 0] <= 2 * tolerance)


def _session(model: onnx.ModelProto) -> Any:
    """Return what runs the model in onnxruntime: from a dict of its inputs, and more, to all outputs."""
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(serialize(model), session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise RuntimeError(
            f"onnxruntime {ort.__version__} cannot load the model; verify=False exports without it: {error}"
        ) from error
    names = [entry.name for entry in model.graph.input]

    def run(feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        try:
            return list(session.run(None, {name: feed[name] for name in names}))
        except Exception as error:
            raise RuntimeError(f"onnxruntime cannot run the exported pipeline: {error}") from error

    return run
