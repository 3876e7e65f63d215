"""Values of the engine's activations, of which quantized networks hold tables."""

from __future__ import annotations

from nbdense._compile.policy import entry
from nbdense.engine.elementwise.activation_loops import activate_row


def _evaluate(layers, values):
    """Apply the activation of a row of the engine's to ``values`` in place; a whole number of blocks."""
    activate_row(layers[0], values, 0, 1)


evaluate = entry(_evaluate)
