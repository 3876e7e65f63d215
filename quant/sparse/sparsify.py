"""sparsify(): from a pruned model to one that is run without its zero weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense.network import Network
from nbdense.quant.conversion.assembly import Choice, assemble
from nbdense.quant.conversion.plan import source_of
from nbdense.quant.conversion.quantizer import Quantizer
from nbdense.quant.model.model import QuantizedModel
from nbdense.quant.model.network import QuantizedNetwork
from nbdense.quant.model.scoring import compiled_of
from nbdense.quant.schemes.options import Options
from nbdense.quant.schemes.table import SCHEMES
from nbdense.quant.sparse.choosing import choose
from nbdense.quant.sparse.forms import checked_choice, forms_of
from nbdense.quant.sparse.model import SparseModel
from nbdense.quant.sparse.programs import Limits


def sparsify(model: Any, *, choice: Any = None) -> SparseModel:
    """Return a model that is run without its zero weights, layer by layer where that is faster on this machine.

    The model is timed with each dense layer in its sparse forms and dense, for few rows a call and for many, and keeps
    what is faster by more than noise. What was picked is in the report and in files. The outputs do not depend on it:
    they are those of the dense layers, bit for bit, where inputs are finite.

    Parameters
    ----------
    model : Sequential, Network or QuantizedModel
        A model that was pruned, in float32 or of a static quantization; not changed. Batch normalisations go into the
        dense layers beside them first, where they can, as `quantize` does it.
    choice : str, (str, str), or mapping of str to these, optional
        What layers are run in, in place of measuring: "dense", or the blocks of weights (inputs by outputs) of which
        those without a weight other than zero are left out: "1x1", "1x4", "1x8" or "1x16", of integers "4x16". One for
        all dense layers, or by their names; two are for few rows a call and for many. `SparseModel.choice` is one.

    Returns
    -------
    SparseModel

    Raises
    ------
    ValueError
        For a model that is none of these, weights that are not finite, no dense layer, or a choice that there is not.

    Examples
    --------
    >>> from nbdense.layers import Dense, Input
    >>> from nbdense.models import Sequential
    >>> from nbdense.quant import prune
    >>> model = prune(Sequential([Input((8,)), Dense(32, activation="relu"), Dense(2)]), 0.75)
    >>> sparse = sparsify(model, choice="1x1")
    >>> sparse.report("dict", timings=False)["model"]["kept"]
    80
    """
    source, network = _network_of(model)
    if not any(layer.multiply_adds for layer in network.layers):
        raise ValueError("sparsify: the model has no Dense layer, and only their kernels can be sparse")
    if choice is None:
        picked, limits = choose(network)
    else:
        picked, limits = checked_choice(network, choice, "sparsify"), Limits()
    made = SparseModel(network, picked, compiled_of(model), limits)
    made.float_network = source
    return made


def _network_of(model: Any) -> tuple[Network | None, QuantizedNetwork]:
    """Return the float network, where it is one, and that whose layers are run."""
    if isinstance(model, QuantizedModel):
        held = model.network
        if not all(forms_of(layer) for layer in held.layers if layer.multiply_adds):
            raise ValueError(
                f"sparsify: of quantized models, those of scheme 'static' can be sparse, got {held.scheme!r}"
            )
        return model.float_network, held
    network = source_of(model)
    if not isinstance(network, Network):
        raise ValueError(
            f"sparsify: expected a built model, a Network or a quantized model, got {type(model).__name__}"
        )
    if network.quantization:
        raise ValueError("sparsify: this model trains for quantization; quantize it first, then sparsify the result")
    if network.dtype != np.float32:
        raise ValueError(f"sparsify: the model must be float32, got {network.dtype}")
    scheme = next(name for name, scheme in SCHEMES.items() if not scheme.calibrates)  # any: all layers stay in float
    quantizer = Quantizer(network, None, Options(scheme=scheme))
    return network, assemble(quantizer, dict.fromkeys(range(len(quantizer.steps)), Choice(0)))
