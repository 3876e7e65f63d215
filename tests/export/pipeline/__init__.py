"""Tests of pipeline_to_onnx."""
