"""ONNX's own node cases through from_onnx: those of its operators whose shapes are a dense network's."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # cases of other operators overflow on purpose while they are made

# What from_onnx reads as a part of a layer, and what of these stands alone in cases.
