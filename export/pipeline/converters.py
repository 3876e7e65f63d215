"""Converters of nbdense's estimators for skl2onnx, which `register_converters` tells of them.

The network's nodes are those of the first flavour of its kind, float or quantized, written by the same code, under
names that are new in the graph. Labels are a Gather from the classes by the largest probability, and probabilities a
plain tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from nbdense.export.graph.builder import INPUT, OUTPUT, Graph
from nbdense.export.networks import shapes_of
from nbdense.export.write.exporter import write_nodes

# What skl2onnx lets one choose of a classifier; pipeline_to_onnx chooses no ZipMap.
_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False], "output_class_labels": [False, True]}


def register_converters() -> None:
    """Tell skl2onnx how to convert nbdense's estimators; `pipeline_to_onnx` does it by itself.

    After that skl2onnx's own functions take them too, alone or inside of other models.

    Raises
    ------
    ImportError
        If skl2onnx or scikit-learn is not installed.
    """
    try:
        from skl2onnx import update_registered_converter
    except ModuleNotFoundError as error:
        if error.name != "skl2onnx":  # it is there, and lacks something itself
            raise
        raise ImportError("exporting a Pipeline needs skl2onnx: pip install 'nbdense[skl2onnx]'") from error
    from nbdense.estimators import MLPClassifier, MLPRegressor

    update_registered_converter(
        MLPClassifier, "NbdenseMLPClassifier", _classifier_shapes, _convert_classifier, options=_OPTIONS
    )
    update_registered_converter(
        MLPRegressor, "NbdenseMLPRegressor", _regressor_shapes, _convert_regressor, parser=_parse_regressor
    )


def refuse_single_class(mlp: Any) -> None:
    """Raise for a classifier that was fitted on one class: it has two probabilities, and no label for the second.

    Parameters
    ----------
    mlp : MLPClassifier or MLPRegressor
        Fitted.

    Raises
    ------
    ValueError
        Naming the class.
    """
    classes = getattr(mlp, "classes_", None)
    if classes is not None and len(classes) < 2:
        raise ValueError(
            f"the classifier was fitted on one class only, {classes[0]}, and predicts it for every row: there is "
            "nothing to export; fit it on rows of two classes"
        )


def _classifier_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from skl2onnx.common.utils_classifier import get_label_classes

    mlp = operator.raw_operator
    refuse_single_class(mlp)
    batch = operator.inputs[0].get_first_dimension()
    classes = _onnx_classes(get_label_classes(operator.scope_inst, mlp))
    label = StringTensorType if classes.data_type == TensorProto.STRING else Int64TensorType
    operator.outputs[0].set_type(label([batch, len(mlp.classes_)] if mlp._multilabel else [batch]))
    operator.outputs[1].set_type(FloatTensorType([batch, len(mlp.classes_)]))


def _regressor_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    batch = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(FloatTensorType([batch, operator.raw_operator.n_outputs_]))


def _parse_regressor(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Declare a regressor's output under the default name: skl2onnx would call it "variable"."""
    from skl2onnx.common.data_types import FloatTensorType

    operator = scope.declare_local_operator("NbdenseMLPRegressor", model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable(OUTPUT, FloatTensorType()))
    return operator.outputs


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    _write_network(scope, operator, container, operator.outputs[0].full_name)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.common.utils_classifier import get_label_classes

    mlp = operator.raw_operator
    label, probabilities = (output.full_name for output in operator.outputs)
    if mlp.n_outputs_ > 1:
        _write_network(scope, operator, container, probabilities)
    else:
        second = scope.get_unique_variable_name("second")
        _write_network(scope, operator, container, second)
        one = _constant(scope, container, "one", np.float32(1.0))
        first = _node(scope, container, "Sub", [one, second], "first")
        _node(scope, container, "Concat", [first, second], probabilities, new=False, axis=1)
    if mlp._multilabel:
        half = _constant(scope, container, "half", np.float32(0.5))
        above = _node(scope, container, "Greater", [probabilities, half], "above")
        _node(scope, container, "Cast", [above], label, new=False, to=TensorProto.INT64)
        return
    number = _node(scope, container, "ArgMax", [probabilities], "class_number", axis=1, keepdims=0)
    classes = _onnx_classes(get_label_classes(scope, mlp))
    classes.name = scope.get_unique_variable_name("classes")
    container.initializers.append(classes)
    _node(scope, container, "Gather", [classes.name, number], label, new=False, axis=0)


def convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """Convert a SimpleImputer: of float64 by core operators, because onnxruntime has no Imputer of that type.

    Parameters
    ----------
    scope, operator, container : Scope, Operator, ModelComponentContainer
        As skl2onnx hands them to its converters.
    """
    from skl2onnx.common._registration import get_converter
    from skl2onnx.common.data_types import DoubleTensorType

    imputer, sources = operator.raw_operator, operator.inputs
    if len(sources) > 1 or not isinstance(sources[0].type, DoubleTensorType):
        get_converter("SklearnSimpleImputer")(scope, operator, container)
        return
    source = sources[0].full_name
    if np.isnan(imputer.missing_values):
        missing = _node(scope, container, "IsNaN", [source], "missing")
    else:
        value = _constant(scope, container, "missing_value", np.float64(imputer.missing_values))
        missing = _node(scope, container, "Equal", [source, value], "missing")
    filling = _constant(scope, container, "filling", imputer.statistics_.astype(np.float64))
    _node(scope, container, "Where", [missing, filling, source], operator.outputs[0].full_name, new=False)


def _write_network(scope: Any, operator: Any, container: Any, target: str) -> None:
    """Write the network's nodes and constants as `to_onnx` does, under names that are new here."""
    from skl2onnx.common.data_types import FloatTensorType

    source = operator.inputs[0].full_name
    if not isinstance(operator.inputs[0].type, FloatTensorType):
        source = _node(scope, container, "Cast", [source], "features", to=TensorProto.FLOAT)
    network = operator.raw_operator.model_.network
    graph = Graph(container.target_opset_onnx)
    write_nodes(graph, network)
    written = graph.finish(*shapes_of(network), {}, "model.onnx").graph
    if graph.outside:
        raise ValueError("the network's tensors take over 2 GB: a Pipeline has to fit into one ONNX file")
    names = {INPUT: source, OUTPUT: target, "": ""}  # the last: an optional input that is left out
    for tensor in written.initializer:
        names[tensor.name] = tensor.name = scope.get_unique_variable_name(tensor.name)
        container.initializers.append(tensor)
    for node in written.node:
        inputs = [names[name] for name in node.input]
        for output in node.output:
            names.setdefault(output, scope.get_unique_variable_name(output))
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        name = scope.get_unique_operator_name(node.op_type)
        container.add_node(node.op_type, inputs, [names[output] for output in node.output], name=name, **attributes)


def _node(
    scope: Any, container: Any, operator: str, inputs: list[str], output: str, new: bool = True, **attributes: Any
) -> str:
    """Add a node with one output, whose name is made unique where it is ``new``; return the name."""
    output = scope.get_unique_variable_name(output) if new else output
    container.add_node(operator, inputs, [output], name=scope.get_unique_operator_name(operator), **attributes)
    return output


def _constant(scope: Any, container: Any, name: str, value: Any) -> str:
    tensor = numpy_helper.from_array(np.asarray(value), scope.get_unique_variable_name(name))
    container.initializers.append(tensor)
    return tensor.name


def _onnx_classes(classes: npt.NDArray[Any]) -> TensorProto:
    """Return the classes as a tensor without a name: of strings, or of int64."""
    listed = classes.tolist()
    if all(isinstance(label, str) for label in listed):
        return helper.make_tensor("", TensorProto.STRING, [len(listed)], [label.encode() for label in listed])
    try:
        numbers = [int(label) for label in listed]
    except (TypeError, ValueError):
        numbers = []
    if numbers != listed or not all(-(2**63) <= number < 2**63 for number in numbers):
        raise ValueError(f"classes must be strings or whole numbers of 64 bits to be ONNX labels, got {classes}")
    return numpy_helper.from_array(np.array(numbers, np.int64))
