"""Initializers by name: Keras's, PyTorch's, and one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbdense._registry import Registry, class_and_config
from nbdense.initializers.base import FunctionInitializer, Initializer
from nbdense.initializers.drawn import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    RandomNormal,
    RandomUniform,
    TorchLinear,
    TruncatedNormal,
    VarianceScaling,
)
from nbdense.initializers.fixed import Constant, Identity, Ones, Zeros
from nbdense.initializers.orthonormal import Orthogonal

_KINDS: tuple[type[Initializer], ...] = (
    *(Zeros, Ones, Constant, Identity, Orthogonal, TorchLinear),
    *(RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling),
    *(GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal, LecunUniform),
)
INITIALIZERS: dict[str, type[Initializer]] = {kind.name: kind for kind in _KINDS}
_ALIASES = {  # Keras has them
    "normal": "random_normal",
    "uniform": "random_uniform",
    "one": "ones",
    "zero": "zeros",
    "IdentityInitializer": "identity",
    "OrthogonalInitializer": "orthogonal",
}


def _describe(initializer: Initializer) -> str | dict[str, Any]:
    if isinstance(initializer, FunctionInitializer):
        return initializer.label
    kind = type(initializer)
    if INITIALIZERS.get(kind.name) is kind and initializer.get_config() == kind().get_config():
        return kind.name
    return class_and_config(initializer)


REGISTRY: Registry[Initializer] = Registry(
    "initializer",
    Initializer,
    INITIALIZERS,
    _ALIASES,
    listed=sorted({*INITIALIZERS, "normal", "uniform", "one", "zero"}),
    hint="; one of your own is passed as a function of (shape, dtype=None), or by its name in custom_objects",
    describe=_describe,
    from_function=FunctionInitializer,
)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Initializer | None:
    """Return the initializer that ``identifier`` names or is; None for None.

    Parameters
    ----------
    identifier : None, str, dict, Initializer, type, callable or ndarray
        A name ('he_normal' or 'HeNormal'), with the default arguments; {"class_name": name, "config": arguments}
        (or "name" for "class_name"); an initializer or its class; a function that gives an array, of (shape,
        dtype=None) or of (shape, random), where the model's seed decides; an array, for itself.
    custom_objects : mapping of str, optional
        Initializers, classes and functions of the user's by name; they go before those that there are.

    Raises
    ------
    ValueError
        If there is no such initializer, or it doesn't take these arguments.
    """
    if identifier is None:
        return None
    return Constant(identifier) if hasattr(identifier, "__array__") else REGISTRY.get(identifier, custom_objects)


def for_layer(identifier: Any) -> Initializer:
    """Return the initializer of a layer's tensor; None stands for glorot_uniform, as in Keras.

    Parameters
    ----------
    identifier : None, or what `get` takes
        The argument of a layer.
    """
    return get("glorot_uniform" if identifier is None else identifier) or GlorotUniform()


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Initializer | None:
    """Return the initializer that `serialize` described.

    Parameters
    ----------
    config : str or dict
        The description.
    custom_objects : mapping of str, optional
        As for `get`.
    """
    return get(config, custom_objects)


def serialize(initializer: Any) -> str | dict[str, Any]:
    """Describe an initializer for JSON: by its name where its arguments are the defaults, else by a dict.

    Parameters
    ----------
    initializer : Initializer, or what `get` takes
        One of the user's own is written by its name, and needs ``custom_objects`` to be rebuilt.

    Examples
    --------
    >>> serialize(HeNormal())
    'he_normal'
    >>> get(serialize(Constant(0.5)))
    Constant(value=0.5)
    """
    description: str | dict[str, Any] = REGISTRY.serialize(initializer)
    return description
