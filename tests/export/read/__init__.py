"""Tests of from_onnx."""
