"""`from_torch`: a module of torch's as a Sequential, without a file in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbdense.export.frameworks import torch_layers
from nbdense.export.frameworks.chain import Chain, class_of
from nbdense.export.frameworks.graph import Node, write_nodes
from nbdense.models import Sequential

OWNER = "from_torch"
_ELSEWHERE = "torch.onnx.export and nbdense.from_onnx take more of what a module may do"
_SUMS = ("add", "add_", "iadd")
_SHAPES = ("view", "reshape")


def from_torch(module: Any, input_shape: Sequence[int] | None = None, *, dtype: str = "float32") -> Sequential:
    """Make a model of a torch module: of its layers, in evaluation mode, with copies of their weights.

    An ``nn.Sequential``, nested or not, is read as it is. Any other module is followed through its ``forward`` by
    ``torch.fx``: its modules, functions such as ``F.relu``, and sums of a branch and its start, which become a
    `Residual`. BatchNorm1d keeps its running statistics, and Dropout its rate, for training. It predicts what the
    module does in evaluation mode, within 1e-5.

    Parameters
    ----------
    module : torch.nn.Module
        Linear, Flatten, BatchNorm1d, normalisations of rows, dropouts, Identity, and the activations that
        docs/from_pytorch.md lists.
    input_shape : sequence of int, optional
        Shape of one row of data; None: (n,), as the first layer that has a width says it. A Flatten in front needs it.
    dtype : {"float32", "float64"}
        Type of the model.

    Returns
    -------
    Sequential
        Not compiled.

    Raises
    ------
    TypeError
        If it is no module of torch's.
    ValueError
        For a module, a function or an option that no layer stands for: it is named; and where ``forward`` cannot be
        followed, because it depends on the data, say.

    Examples
    --------
    >>> from nbdense.export import from_torch
    >>> try:
    ...     from_torch("model.pt")
    ... except TypeError as error:
    ...     print(error)
    from_torch: expected a torch.nn.Module, got str; torch.load reads files
    """
    if not hasattr(module, "_modules"):
        raise TypeError(f"{OWNER}: expected a torch.nn.Module, got {type(module).__name__}; torch.load reads files")
    chain = Chain(OWNER, None if input_shape is None else tuple(input_shape))
    append_module(chain, module, "")
    return chain.model(dtype)


def append_module(chain: Chain, module: Any, name: str) -> None:
    """Append what a module does: a layer, or those inside it.

    Parameters
    ----------
    chain : Chain
        What is written.
    module : torch.nn.Module
        The module.
    name : str
        Its name in the model.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    kind = class_of(module, "torch.nn", ("forward",))
    if kind == "Sequential":
        for key, child in module._modules.items():
            append_module(chain, child, f"{name}.{key}" if name else key)
    elif kind in torch_layers.KNOWN:
        torch_layers.append(chain, kind, module, name)
    elif kind and kind != "Module":
        why = torch_layers.REFUSED.get(kind, f"no layer stands for it; {_ELSEWHERE}")
        raise chain.fail(f"{kind} {name!r}", why)
    else:
        _append_forward(chain, module, name)


def _append_forward(chain: Chain, module: Any, name: str) -> None:
    """Append what a module of the user's does, as torch.fx records its forward."""
    from torch import fx

    place = f"{type(module).__name__} {name!r}" if name else type(module).__name__
    try:
        recorded = list(fx.symbolic_trace(module).graph.nodes)
    except Exception as error:  # whatever a forward raises that is called with no data
        raise chain.fail(
            place, f"its forward cannot be followed ({error}); give the nn.Sequential in it, or {_ELSEWHERE}"
        ) from error
    made: dict[Any, Node] = {}
    for step in recorded:
        if step.op == "placeholder" and step.args:
            continue  # an argument with a default
        if step.op == "placeholder":
            if any(not node.inputs for node in made.values()):
                raise chain.fail(place, f"its forward takes several inputs, {step.name!r} too; a model here has one")
            made[step] = Node()
        elif step.op == "output":
            (end,) = step.args[:1]
            if end not in made:
                raise chain.fail(place, f"its forward must return one tensor, got {end!r}")
            write_nodes(chain, made[end])
        elif _data_of(step, made):
            made[step] = _node(chain, module, name, step, made)


def _data_of(step: Any, made: dict[Any, Node]) -> list[Node]:
    """Return the tensors that a step reads; none of one that asks for a shape."""
    if step.op == "call_method" and step.target in ("size", "dim"):
        return []
    given = (*step.args, *step.kwargs.values())
    return [made[value] for value in given if _hashable(value) and value in made]


def _hashable(value: Any) -> bool:
    return type(value).__hash__ is not None and not isinstance(value, tuple | slice)


def _node(chain: Chain, module: Any, name: str, step: Any, made: dict[Any, Node]) -> Node:
    """Return the node of a step that torch.fx recorded."""
    inputs = tuple(_data_of(step, made))
    if step.op == "call_module":
        path, child = f"{name}.{step.target}" if name else str(step.target), module
        for part in str(step.target).split("."):
            child = child._modules[part]
        return Node(inputs, lambda chain: append_module(chain, child, path), path)
    called = step.target if isinstance(step.target, str) else getattr(step.target, "__name__", str(step.target))
    place = f"{called}() in the forward of {type(module).__name__}"
    arguments, options = tuple(step.args[1:]), dict(step.kwargs)
    if called in _SUMS and len(inputs) == 2 and set(options) <= {"alpha"} and options.get("alpha", 1) == 1:
        return Node(inputs, place=place)
    if called in _SHAPES and len(inputs) == 1 and len(arguments) == 2 and arguments[1] == -1:
        return Node(inputs, lambda chain: chain.flatten(place), place)
    if called in torch_layers.FUNCTIONS and len(inputs) == 1:
        return Node(inputs, lambda chain: torch_layers.append_function(chain, called, arguments, options), place)
    raise chain.fail(place, f"no layer stands for it; {_ELSEWHERE}")
