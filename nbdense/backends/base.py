"""The seam between what a run is and the device that it runs on: the data that crosses it, and what a backend offers.

Whoever calls a backend owns the arrays: a network's parameters, gradients and slots are the caller's, and hold the
results of a call once it has returned. What a backend keeps besides them, on its device or in the host's memory, is its
own affair; the caller asks for what it wants to see of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbdense.engine.elementwise.loss_forms import FORMS, LossForm
from nbdense.network import Network
from nbdense.optimizers import Optimizer

Bytes = npt.NDArray[np.uint8]  # an array's memory
Source = tuple[Bytes, npt.NDArray[Any]]


class NoDeviceError(RuntimeError):
    """An error: there is no GPU, or nothing that compiles for it.

    Parameters
    ----------
    reason : str
        What is missing.
    """

    def __init__(self, reason: str) -> None:
        advice = "install nbdense[cuda] and the driver of an NVIDIA GPU, or stay on the CPU"
        super().__init__(f"device 'cuda': {reason}; {advice}")
        self.reason = reason


class DeviceLostError(RuntimeError):
    """An error: the GPU has stopped answering; the model has the weights that were copied back last."""


@dataclass(frozen=True)
class Objective:
    """Computation of a run on outputs and targets: a compiled loss and metrics."""

    form: LossForm
    parameter: float
    fused: bool
    sparse: bool
    metrics: tuple[int, ...]
    target_width: int
    call: int = 0  # address of the loop of a loss on demand


NOTHING = Objective(FORMS["mean_squared_error"], 0.0, False, False, (), 1)  # for runs without a loss


@dataclass(frozen=True, eq=False)
class Data:
    """Sources of a data set's rows; ``weights`` has no rows where all weigh alike.

    Nobody writes to the rows while there is such an object: a device may keep a copy of them as long.
    """

    x: Source
    y: Source
    weights: Source
    rows: int


@dataclass(frozen=True)
class Accepted:
    """Targets that a loss takes: what a run holds those against that nobody has looked at before.

    Attributes
    ----------
    least, most : float
        Ends of their range.
    whole : bool
        Whether they are whole numbers.
    sum_tolerance : float
        By how much a row of them may miss a sum of 1; below 0 where any sum will do.
    """

    least: float
    most: float
    whole: bool = False
    sum_tolerance: float = -1.0


class Plan(Protocol):
    """Describe runs that are prepared, by `Workspace.plan`: all that can be known before the data are there.

    What may have changed between two runs is looked at in each: the network's arrays and mask, the optimizer's settings
    and its count of batches.
    """

    def run(
        self,
        data: Data,
        *,
        first_step: int = 0,
        count: int = 1,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = False,
    ) -> tuple[int, npt.NDArray[np.float64]]:
        """Work through batches ``first_step``.. of an epoch; ``network.version`` counts those that update.

        Each step of an optimizer is followed by ``network.project()``, where the network has projections.

        Parameters
        ----------
        data : Data
            Rows that have been looked at.
        first_step, count : int
            Which batches.
        epoch, seed : int
            What their order depends on, if they are to be shuffled, and what dropout drops.
        shuffle : bool

        Returns
        -------
        done : int
            Batches finished; fewer than ``count`` where a loss was not finite.
        totals : ndarray, (count, 1 + metrics), float64
            Sums of loss and metrics over each batch's rows and their positions, to be read before the next run.
        """

    def again(self, x: Bytes, y: Bytes, weights: Bytes, seed: int = 0) -> tuple[int, npt.NDArray[np.float64]]:
        """Work through one batch more, of the dtypes, shapes and strides of the last run's, which was one batch.

        Nobody need have looked at it: where the plan was made with what is accepted, numbers that are not end the run
        before it has changed anything, as a loss that is not finite does.

        Parameters
        ----------
        x, y, weights : ndarray of uint8
            Memory of inputs, targets and weights.
        seed : int
            As for `run`.

        Returns
        -------
        done : int
            1, or 0 where numbers are not accepted or the loss is not finite.
        totals : ndarray, (1, 1 + metrics), float64
            Of a batch that was done.
        """


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """A quantized network laid out as plain data; `nbdense.quant.kernels.tables` has the layout.

    Attributes
    ----------
    packed : ndarray of uint8
        Tables, weights and constants.
    floats : (structured array of `LAYER`, ndarray of float32) or None
        Rows of the engine's table for layers in float, and their parameters; None where there are none.
    takes_whole_call : bool
        Whether a layer takes its scale from all rows of a call together.
    flops_a_row : float
        Operations that a row of data costs.
    sparse : tuple of ndarrays, or None
        The vectors of kernels that are held without their zeros, of `nbdense.quant.kernels.tables.SPARSE`; None where
        there are none.
    """

    packed: npt.NDArray[np.uint8]
    floats: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None
    takes_whole_call: bool
    flops_a_row: float
    sparse: tuple[npt.NDArray[Any], ...] | None = None


class IntegerPredictor(Protocol):
    """Describe an integer program that a backend has loaded."""

    def predict(self, x: npt.NDArray[np.float32], integers: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Write the outputs of all rows; an array of no rows is for outputs that are not wanted.

        Parameters
        ----------
        x : ndarray of float32, (rows, n_in), C-ordered, writable
        integers : ndarray of uint8, (rows, n_out)
            Takes the last layer's integers, counted from their type's minimum. A program that takes whole calls has
            none.
        values : ndarray of float32, (rows, n_out)
            Takes the outputs, dequantized and through the softmax where there is one.
        """


class Predictor(Protocol):
    """Describe the prediction of rows by a network, prepared by `Backend.predictor`; any number of threads may call."""

    def predict(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the outputs of rows, (rows, n_out), by the network's parameters as they are now.

        Parameters
        ----------
        x : ndarray, (rows, n_in), C-ordered, writable, of the network's dtype
        """


class Workspace(Protocol):
    """Describe the memory of runs over batches of a network, made by `Backend.workspace`: its size is theirs alone.

    Attributes
    ----------
    network : Network
    batch : int
        Rows of data at a time, at most.
    state : ndarray, (1 + slots, parameters)
        Row 0 takes gradients; the rest are the optimizer's slots.
    steps_at_once : int
        Forward passes of whole batches, at most, that a run may take for Ctrl-C to be heard in time.
    """

    network: Network
    batch: int
    state: npt.NDArray[Any]
    steps_at_once: int

    @property
    def nbytes(self) -> int:
        """Bytes of memory; gradients and slots, which belong to the model, are not among them."""

    def plan(
        self,
        phases: npt.NDArray[Any],
        *,
        layers: npt.NDArray[Any] | None = None,
        optimizer: Optimizer | None = None,
        accepted: Accepted | None = None,
    ) -> Plan:
        """Prepare runs in this memory; those of several plans take turns.

        Parameters
        ----------
        phases : structured array of `PHASE`
            What is done with each batch; see `nbdense.training.phases`.
        layers : structured array of `LAYER`, optional
            The table that the phases are of; by default that for training.
        optimizer : Optimizer, optional
            For phases that take its steps; it is not told of them.
        accepted : Accepted, optional
            Targets that `Plan.again` takes, beside finite inputs and weights; by default it takes anything.
        """

    def run(
        self,
        phases: npt.NDArray[Any],
        data: Data,
        *,
        layers: npt.NDArray[Any] | None = None,
        optimizer: Optimizer | None = None,
        **options: Any,
    ) -> tuple[int, npt.NDArray[np.float64]]:
        """Prepare a run and take it once.

        Parameters
        ----------
        phases : structured array of `PHASE`
            As for `plan`.
        data : Data
            As for `Plan.run`, which says what is returned.
        layers : structured array of `LAYER`, optional
        optimizer : Optimizer, optional
            As for `plan`.
        **options
            Others of `Plan.run`.
        """

    def tensor(self, row: Any, name: str, rows: int, *, deltas: bool = False) -> npt.NDArray[Any]:
        """Return what the last batch left of a row of a table, to be read before the next run.

        Of a run that updates only the last row's outputs need be there.

        Parameters
        ----------
        row : record of `LAYER`, or a mapping of its fields
            Of the table that was run.
        name : {"input", "second", "pre", "output"}
            Which of its buffers.
        rows : int
            Rows of data that the batch had.
        deltas : bool
            Whether its deltas are wanted in place of its values.

        Returns
        -------
        ndarray, (rows, positions, columns), of the network's dtype
        """

    def targets(self, rows: int) -> npt.NDArray[Any]:
        """Return the last batch's targets, (rows, positions, target_width), to be read before the next run.

        Parameters
        ----------
        rows : int
            Rows of data that the batch had.
        """

    def weights(self, rows: int) -> npt.NDArray[Any]:
        """Return the weights of the last batch's rows, (rows, positions, 1), to be read before the next run.

        Parameters
        ----------
        rows : int
            Rows of data that the batch had.
        """

    def set_deltas(self, row: Any, deltas: npt.NDArray[Any]) -> None:
        """Set the deltas of a row's output, from which the phases of a backward pass start.

        Parameters
        ----------
        row : record of `LAYER`, or a mapping of its fields
            Of the table that was run.
        deltas : ndarray, (rows, positions, columns)
        """


class Backend(Protocol):
    """Describe what a device's engine offers; `nbdense.backends.current` chooses one."""

    def workspace(self, network: Network, objective: Objective, batch: int, state: npt.NDArray[Any]) -> Workspace:
        """Return the memory for runs of a network.

        Parameters
        ----------
        network : Network
        objective : Objective
            What runs compute from outputs and targets.
        batch : int
            Rows of data at a time, at most.
        state : ndarray, (1 + slots, parameters)
            Gradients and the optimizer's slots.
        """

    def predictor(self, network: Network) -> Predictor:
        """Prepare the prediction of rows.

        Parameters
        ----------
        network : Network
        """

    def predict(self, network: Network, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a network's outputs, (rows, n_out): those of a predictor that is used once.

        Parameters
        ----------
        network : Network
        x : ndarray, (rows, n_in), C-ordered, writable, of the network's dtype
        """

    def load(self, program: IntegerProgram) -> IntegerPredictor:
        """Make a quantized network ready to predict.

        Parameters
        ----------
        program : IntegerProgram
            Its arrays stay as they are from now on.
        """
