"""An output of class labels, before the probabilities: int64 class numbers, or class names.

Of several outputs the largest one's class, the first of equal ones; of one probability, class 1 from 0.5 on. Names are
gathered from a constant of strings. There is no ZipMap: both outputs are tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from nbdense.export.graph.activations import ACTIVATION_FORMS
from nbdense.export.graph.builder import Graph, Shape
from nbdense.losses.base import THRESHOLD

LABEL = "label"  # the output's default name


def write_labels(
    graph: Graph, shape: Shape, activation: str, name: str = LABEL, class_names: Sequence[str] | None = None
) -> None:
    """Write the nodes from the network's output to its labels.

    Parameters
    ----------
    graph : Graph
        The graph that is written, with the network in it.
    shape : sequence of int and str
        Shape of one row of the network's output.
    activation : str
        The last layer's.
    name : str
        The output's name.
    class_names : sequence of str, optional
        One for each class; without them labels are class numbers.

    Raises
    ------
    ValueError
        If one output is no probability.
    """
    axis = graph.axis if graph.axis < 0 else graph.axis - 1  # of one row of data
    columns = shape[axis]
    numbers = name if class_names is None else f"{name}_number"
    if columns != 1:
        graph.node("ArgMax", [graph.output], numbers, axis=graph.axis, keepdims=0)
    elif activation in ACTIVATION_FORMS and ACTIVATION_FORMS[activation].is_probability:
        threshold = graph.constant(f"{name}_threshold", THRESHOLD, np.float32)
        above = graph.node("GreaterOrEqual", [graph.output, threshold], f"{name}_above")
        axes = graph.constant(f"{name}_axis", [graph.axis], np.int64)
        graph.node("Cast", [graph.node("Squeeze", [above, axes], f"{name}_flat")], numbers, to=TensorProto.INT64)
    else:
        raise ValueError(
            f"to_onnx: labels need several outputs or one probability; this model has one output, of {activation!r}"
        )
    if class_names is not None:
        names = graph.constant(f"{name}_names", np.array(class_names, object), object)
        graph.node("Gather", [names, numbers], name, axis=0)
    left = [size for index, size in enumerate(shape) if index != axis % len(shape)]
    graph.label(name, TensorProto.INT64 if class_names is None else TensorProto.STRING, left)
