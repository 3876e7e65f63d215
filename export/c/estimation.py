"""`estimate`: what a model costs on a processor, before anything is compiled."""

from __future__ import annotations

from typing import Any

from nbdense.export.c.api import texts_of
from nbdense.export.c.costs.costs import Estimate
from nbdense.export.c.costs.measured import CODE
from nbdense.export.c.program import network_in_c
from nbdense.export.networks import is_quantized


def estimate(model_or_quantized: Any, target: str = "cortex-m4") -> Estimate:
    """Estimate what a model takes on a processor: flash, RAM and instructions, without a compiler.

    Parameters
    ----------
    model_or_quantized : QuantizedModel or QuantizedNetwork
        The model, statically quantized; sparse or not.
    target : str
        The processor: one of `to_c`'s but "generic" and "cmsis-nn".

    Returns
    -------
    Estimate
        A line as text; its ``report`` has the layers.

    Raises
    ------
    TypeError, ValueError
        As `to_c`; or if the model is a float one, whose code depends on the compiler's library.

    Examples
    --------
    >>> import numpy as np
    >>> from nbdense import Dense, Input, Sequential, quantize
    >>> from nbdense.export import estimate
    >>> model = Sequential([Input((20,)), Dense(64, "relu"), Dense(2)])
    >>> small = quantize(model, np.random.default_rng(0).normal(size=(100, 20)))
    >>> estimate(small, "cortex-m0plus").report("dict")["multiply_adds"]
    1408
    """
    if target not in CODE:
        raise ValueError(f"target must be one of {', '.join(map(repr, CODE))}, got {target!r}")
    network = network_in_c(model_or_quantized)
    if not is_quantized(network):
        raise ValueError("estimate: quantize the model first: a float one's code depends on the compiler's library")
    made = texts_of(network, "net", "net.h", target=target).estimate
    assert made is not None
    return made
