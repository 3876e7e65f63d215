"""Tests of verify_onnx."""
