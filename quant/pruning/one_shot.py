"""prune(): weights or neurons are removed at once, those of the lowest scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense.models import Sequential
from nbdense.network import Network, held_network
from nbdense.quant.estimators import FittedEstimator, is_estimator
from nbdense.quant.pruning.criteria import dense_rows, kernel_views
from nbdense.quant.pruning.neurons import without_neurons
from nbdense.quant.pruning.rules import Rules, hold, rules_of, share_of
from nbdense.quant.pruning.structures import NEURON
from nbdense.quant.weights.gptq import input_moments
from nbdense.quant.weights.least_squares import refit


def prune(
    model: Any,
    sparsity: float,
    *,
    structure: str = "unstructured",
    scope: str = "global",
    criterion: str = "magnitude",
    exempt: Any = (),
    block_size: Any = None,
    calibration: Any = None,
    update: bool = False,
) -> Any:
    """Set the least of the weights to zero, for good: what trains the new model further holds them there.

    Parameters
    ----------
    model : Sequential or Network
        The trained model; not changed. Or a fitted estimator of `nbdense.estimators`, or a Pipeline that ends in one:
        then calibration data are as its ``fit`` takes them.
    sparsity : float
        The share of kernel weights to remove, in [0, 1), of the layers that are not exempted; rounded to whole weights,
        blocks or neurons. Biases are kept. What was pruned before counts.
    structure : str
        "unstructured": each weight by itself. "block": blocks of ``block_size``. "n:m", such as "2:4": n of each m
        inputs of an output stay; ``sparsity`` is 1 - n / m. "neuron": neurons are removed, so that layers get narrower,
        with all that reads them: rows of the next kernels, norms' vectors, and what sums of residual blocks add up.
    scope : str
        "global" ranks the weights of all kernels together; "layer" removes the share from each kernel.
    criterion : str
        "magnitude": of weights; of blocks and neurons, the norm of their weights (Han et al. 2015, section 3). "lamp":
        the square, over the sum of the layer's squares that are not smaller, so that layers of small weights lose no
        more than others where all are ranked together (Lee et al. 2021, arXiv:2010.07611, section 3).
        "movement": minus weight times gradient, summed over data: by how much the loss grows, to first order (Sanh et
        al. 2020, section 3). "second_order": by how much a layer's squared output error grows when the others make up
        for a weight (Hassibi and Stork 1993; Frantar and Alistarh 2022, section 3). Scores of blocks and neurons
        are means.
    exempt : str or sequence of str
        Names of layers that stay as they are; of a layer in a block "block/layer".
    block_size : int or (int, int), optional
        Inputs and outputs of a block; (1, 16) by default. Blocks at the end of a kernel may have fewer.
    calibration : array-like or (x, y), optional
        "movement" needs inputs and targets, as `Sequential.fit` takes them, of a compiled model. "second_order" needs
        inputs, as `quantize` takes them.
    update : bool
        With "second_order": let the weights that stay make up for those that go, by least squares.

    Returns
    -------
    Sequential or Network, or an estimator or Pipeline like the one that was given
        A new one with ``network.mask`` set; where neurons go, one of narrower layers, with the mask that the model had.
        Of equals the first are kept. `set_weights` leaves the pruned ones at zero too, and warns; ``network.mask =
        None`` lets all weights learn and be set again. What is written to the views of `Sequential.parameters` is not
        looked at.

    Raises
    ------
    ValueError
        For an option that there is not, a sparsity outside [0, 1), an n:m that does not divide a layer's inputs, a
        layer that would lose all its neurons, or weights that are not finite.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> model = Sequential([Input((4,)), Dense(10), Dense(2)])
    >>> pruned = prune(model, 0.5)
    >>> sparsity_of(pruned.network)
    0.5
    >>> [kernel.shape for kernel in prune(model, 0.5, structure="neuron").get_weights()[::2]]
    [(4, 5), (5, 2)]
    """
    if is_estimator(model):
        fitted = FittedEstimator("prune", model)
        pruned = prune(
            fitted.model,
            sparsity,
            structure=structure,
            scope=scope,
            criterion=criterion,
            exempt=exempt,
            block_size=block_size,
            calibration=fitted.inputs_and_targets(calibration),
            update=update,
        )
        return fitted.with_model(pruned)
    share = share_of("prune", "sparsity", sparsity)
    rules = rules_of(
        "prune",
        structure="unstructured" if structure == NEURON and block_size is None else structure,
        scope=scope,
        criterion=criterion,
        exempt=exempt,
        block_size=block_size,
        calibration=calibration,
    )
    if update and criterion != "second_order":
        raise ValueError(f"prune: update=True goes with criterion='second_order', got {criterion!r}")
    source: Network = held_network(model)
    if not isinstance(source, Network):
        raise ValueError(f"prune: expected a built model or a Network, got {type(model).__name__}")
    trained = None if model is source else model
    rules.check(trained, source, share)
    if structure == NEURON:
        if not isinstance(model, Sequential):
            raise ValueError(f"prune: structure 'neuron' needs a Sequential, got {type(model).__name__}")
        if update:
            raise ValueError("prune: update=True goes with weights or blocks, not with structure='neuron'")
        return without_neurons(model, source, rules, share)
    network = source.copy()
    mask = rules.mask(trained, network, share)
    if update:
        _refit(network, rules, mask)
    hold(network, mask)
    return network if model is source else model.with_network(network)


def _refit(network: Network, rules: Rules, mask: Any) -> None:
    """Let the weights that stay make up for those that go."""
    moments = input_moments(network, rules.calibration)
    rows = rules.rows(network)
    for row, masked in zip(rows, kernel_views(network, rows, mask), strict=True):
        row.kernel[...] = refit(row.kernel, masked != 0, moments[row.index])


def sparsity_of(network: Network) -> float:
    """Return the share of kernel weights that are zero.

    Parameters
    ----------
    network : Network
        Pruned or not.
    """
    kernels = [row.kernel for row in dense_rows(network)]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def rewind(model: Sequential, weights: Any) -> Sequential:
    """Return a pruned model with earlier weights: those that are kept begin again from there.

    Method: Frankle and Carbin, "The Lottery Ticket Hypothesis" (2019), section 1; Frankle et al., "Linear Mode
    Connectivity and the Lottery Ticket Hypothesis" (2020), rewinds to weights of early training.

    Parameters
    ----------
    model : Sequential
        A pruned model; not changed.
    weights : sequence of array-like, or Sequential
        As `Sequential.get_weights` gave them, of the unpruned model or the pruned one; or a model that has them.

    Returns
    -------
    Sequential
        With the mask of ``model`` and a fresh optimizer.

    Raises
    ------
    ValueError
        If the model has no mask, or the weights are others than its own in number or shape.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> model = Sequential([Input((4,)), Dense(10), Dense(2)])
    >>> first = model.get_weights()
    >>> ticket = rewind(prune(model, 0.5), first)
    >>> sparsity_of(ticket.network)
    0.5
    """
    source = held_network(model)
    if not isinstance(source, Network) or source.mask is None:
        raise ValueError("rewind: expected a model that prune or PruningSchedule has given a mask")
    arrays = weights.get_weights() if isinstance(weights, Sequential) else [np.asarray(array) for array in weights]
    network = source.copy()
    views = network.tensors()
    if [array.shape for array in arrays] != [view.shape for view in views.values()]:
        got = [array.shape for array in arrays]
        raise ValueError(f"rewind: expected {len(views)} arrays of the shapes of get_weights, got {got}")
    for view, array in zip(views.values(), arrays, strict=True):
        view[...] = array
    hold(network, source.mask.copy())
    return model.with_network(network)
