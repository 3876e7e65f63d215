"""Layers that are no chain: graphs in which a tensor may be added to what was made of it, as residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nbdense.export.frameworks.chain import Array, Chain
from nbdense.export.graph.steps import DenseStep, affine, function

MOST_NESTED = 32  # residual blocks in one another


def _nothing(chain: Chain) -> None:
    """Append nothing: what the input is made of."""


@dataclass(eq=False)
class Node:
    """A tensor that depends on the data, and what makes it of others.

    Attributes
    ----------
    inputs : tuple of Node
        None: it is the model's input; one; or two, whose sum it is.
    write : callable
        Appends what makes it of its input to a chain; not of a sum.
    place : str
        What makes it, for errors.
    """

    inputs: tuple[Node, ...] = ()
    write: Callable[[Chain], None] = _nothing
    place: str = "the input"


def write_nodes(chain: Chain, end: Node, start: Node | None = None, depth: int = 0) -> None:
    """Append what makes one node of another.

    Parameters
    ----------
    chain : Chain
        What is written.
    end : Node
        The result.
    start : Node, optional
        What it is made of; None: the model's input.
    depth : int
        Number of residual blocks around it.

    Raises
    ------
    ValueError
        If a sum is no residual block; it is named.
    """
    path = []
    for node in _back(chain, end):
        if node is start:
            break
        path.append(node)
    for node in reversed(path):
        if len(node.inputs) == 2:
            _write_sum(chain, node, depth)
        else:
            node.write(chain)


def _back(chain: Chain, node: Node) -> Iterator[Node]:
    """Yield a node, and then those that everything before it goes through, up to the input."""
    while True:
        yield node
        if not node.inputs:
            return
        node = node.inputs[0] if len(node.inputs) == 1 else _fork(chain, node)


def _fork(chain: Chain, total: Node) -> Node:
    """Return the last node that both terms of a sum are made of."""
    one, other = total.inputs
    behind = {id(node) for node in _back(chain, one)}
    fork = next((node for node in _back(chain, other) if id(node) in behind), None)
    if fork is None:
        raise chain.fail(total.place, "what it adds does not come from the same input")
    return fork


def _write_sum(chain: Chain, total: Node, depth: int) -> None:
    if depth >= MOST_NESTED:
        raise chain.fail(total.place, f"residual blocks are nested more than {MOST_NESTED} deep")
    fork, branches = _fork(chain, total), []
    for term in total.inputs:
        branch = Chain(chain.owner, chain.shape)
        write_nodes(branch, term, fork, depth + 1)
        if chain.shape is None and branch.input_shape is not None:
            chain.shape = chain.input_shape = branch.input_shape
        branches.append(branch)
    first, second = branches
    if not first.steps and not second.steps:
        chain.add(affine(scale=2.0))
        return
    for branch, skip in ((first, second), (second, first)):
        if not skip.steps and branch.shape in (chain.shape, None):
            branch.add(*([] if branch.steps else [function("linear")]))
            chain.sum(branch, None, total.place)
            return
    for branch, skip in ((first, second), (second, first)):
        kernel = _projection(chain, skip)
        if kernel is not None and branch.shape == skip.shape:
            (dense,) = skip.steps
            if isinstance(dense, DenseStep) and dense.bias is not None:
                branch.add(affine(shift=dense.bias))
            chain.sum(branch, kernel, total.place)
            return
    raise chain.fail(
        total.place,
        "what it adds is no residual block: one of the two must be the data itself, or, where the widths differ, the "
        "data through one linear layer",
    )


def _projection(chain: Chain, skip: Chain) -> Array | None:
    """Return the kernel of a branch that is one linear layer of another width; None where it is something else."""
    if len(skip.steps) != 1 or skip.shape == chain.shape:
        return None
    (step,) = skip.steps
    return step.kernel if isinstance(step, DenseStep) else None
