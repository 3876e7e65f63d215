"""ONNX's own node cases through from_onnx: those of its operators whose shapes are a dense network's."""

import warnings
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from nbdense.export import from_onnx
from nbdense.export.graph import newest_opset
from nbdense.export.import_graph import OPERATORS, OTHER_OPERATORS
from nbdense.files import FileFormatError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cases of other operators overflow on purpose while they are made
    from onnx.backend.test.loader import load_node_model_tests

# What from_onnx reads as a part of a layer, and what of these stands alone in cases.
