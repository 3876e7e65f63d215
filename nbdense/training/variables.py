"""Steps of an optimizer on arrays that belong to no model: what `Optimizer.apply` does.

The arrays become the parameters of a network that is never run forward, so that the steps are those of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense import backends
from nbdense._checks import array_of
from nbdense._warn import warn
from nbdense.backends.base import NOTHING
from nbdense.engine.memory import aligned_zeros
from nbdense.network.builder import NetworkBuilder
from nbdense.optimizers import Optimizer
from nbdense.training.accumulation import Updates


class Variables:
    """Arrays that an optimizer moves, and its slots for them.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.
    variables : sequence
        Arrays, or objects with ``__array__`` and ``assign``.
    spared : collection of int
        ids of variables that are not decayed.
    """

    def __init__(self, optimizer: Optimizer, variables: Sequence[Any], spared: frozenset[int]) -> None:
        self._optimizer, self._variables = optimizer, list(variables)
        arrays = [array_of(f"{optimizer.name}: a variable", variable) for variable in variables]
        if any(array.dtype.kind != "f" for array in arrays) or not arrays:
            raise TypeError(f"{optimizer.name}: variables must be arrays of float32 or float64")
        narrow = all(array.dtype == np.float32 for array in arrays)
        builder = NetworkBuilder(1, np.float32 if narrow else np.float64)
        for number, (variable, array) in enumerate(zip(variables, arrays, strict=True)):
            name = f"{number}/{getattr(variable, 'name', 'variable')}"
            builder.vector(name, array.ravel())
        self._network = network = builder.finish()
        factors = optimizer.decay_factors(parameter.name for parameter in network.parameters)
        network.segments["decay"] = factors * [id(variable) not in spared for variable in variables]
        self._vectors = aligned_zeros((optimizer.state_rows, network.params.size), network.dtype)
        workspace = backends.current().workspace(network, NOTHING, 1, self._vectors)
        self._updates = Updates(workspace, network.layers, optimizer)
        self._shapes = [array.shape for array in arrays]
        first = 1 + optimizer.slots
        parts = [[row] for row in range(first, len(self._vectors))] + [list(range(1, first))]
        slots = [self._views(vector) for vector in self._vectors]
        optimizer.take_slots([slots[row][k] for rows in parts for k in range(len(arrays)) for row in rows])

    def _views(self, vector: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        views = self._network.tensors(vector).values()
        return [view.reshape(shape) for view, shape in zip(views, self._shapes, strict=True)]

    def step(self, gradients: Sequence[Any], variables: Sequence[Any] | None) -> None:
        """Take a step with these gradients; variables without one stay as they are.

        Parameters
        ----------
        gradients, variables : sequence
            Gradients, None for a variable that has none, and the variables that they are of: None for all.
        """
        variables = self._variables if variables is None else variables
        optimizer, title = self._optimizer, type(self._optimizer).name
        places = {id(variable): place for place, variable in enumerate(self._variables)}
        if len(gradients) != len(variables) or any(id(variable) not in places for variable in variables):
            raise ValueError(
                f"{title}: apply takes a gradient for each of the {len(self._variables)} variables that the optimizer "
                "began with; make a new optimizer for others"
            )
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        if not pairs:
            raise ValueError(f"{title}: apply: there are no gradients, all are None")
        if len(pairs) < len(variables):
            missing = len(variables) - len(pairs)
            warn(f"{title}: apply: {missing} of {len(variables)} variables have no gradient, and stay as they are")
        self._network.segments["trainable"] = 0
        own, into = self._views(self._network.params), self._views(self._vectors[0])
        for gradient, variable in pairs:
            place = places[id(variable)]
            own[place][...], into[place][...] = np.asarray(variable), np.asarray(gradient)
            self._network.segments["trainable"][place] = 1
        self._updates.take()
        optimizer.batches += 1
        every = optimizer.ema_overwrite_frequency
        if optimizer.use_ema and every and optimizer.batches % every == 0:
            self._network.params[:] = self._vectors[-1]
        for _, variable in pairs:
            self._write(variable, own[places[id(variable)]])

    def take_averages(self) -> None:
        """Put the moving averages in the variables' place."""
        for variable, average in zip(self._variables, self._views(self._vectors[-1]), strict=True):
            self._write(variable, average)

    def _write(self, variable: Any, value: npt.NDArray[Any]) -> None:
        constraint = getattr(variable, "constraint", None)
        value = value.copy() if constraint is None else np.asarray(constraint(value.copy()))
        if isinstance(variable, np.ndarray):
            variable[...] = value
        else:
            variable.assign(value.astype(np.asarray(variable).dtype))
