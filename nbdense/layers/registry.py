"""Kinds of layers, by the names that files give them."""

from __future__ import annotations

from typing import Any, TypeVar

from nbdense.layers.base import Input, Layer

_Kind = TypeVar("_Kind", bound=type[Layer])

LAYERS: dict[str, type[Layer]] = {Input.kind: Input}


def register(layer: _Kind) -> _Kind:
    """Enter a class of layers under its kind, for files to name: a decorator."""
    LAYERS[layer.kind] = layer
    return layer


def layer_from_config(kind: str, config: dict[str, Any]) -> Layer:
    """Make a layer from its kind and the arguments that its `get_config` gave.

    Parameters
    ----------
    kind : str
        As the class is registered, or its name.
    config : dict
        Its arguments.

    Raises
    ------
    ValueError
        If there is no such kind of layer.
    """
    classes = {layer.__name__: layer for layer in LAYERS.values()} | {"InputLayer": Input}
    layer = LAYERS.get(kind, classes.get(kind))
    if layer is None:
        raise ValueError(f"unknown kind of layer {kind!r}; there are: {', '.join(sorted(LAYERS))}")
    return layer.from_config(config)
