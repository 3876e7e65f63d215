"""Models made of a model's description: with its layers, and weights of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nbdense.models.sequential import Sequential


def clone_model(model: Sequential) -> Sequential:
    """Return a model of such layers, not compiled, with new weights.

    Parameters
    ----------
    model : Sequential
        The model.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential, clone_model
    >>> clone_model(Sequential([Input((2,)), Dense(3, name="hidden")])).layers[0].name
    'hidden'
    """
    if not isinstance(model, Sequential):
        raise ValueError(f"clone_model: expected a Sequential, got {type(model).__name__}")
    return type(model).from_config(model.get_config())


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Sequential:
    """Make a model of what `Sequential.to_json` returned; its weights are new.

    Parameters
    ----------
    json_string : str
        The description.
    custom_objects : mapping of str to object, optional
        One's own activations, initializers and so on by name.

    Raises
    ------
    ValueError
        If it is no description of a Sequential.
    """
    described = json.loads(json_string)
    if not isinstance(described, dict) or described.get("class_name") != "Sequential" or "config" not in described:
        raise ValueError("model_from_json: expected the description of a Sequential, as its to_json returns it")
    return Sequential.from_config(described["config"], custom_objects)
