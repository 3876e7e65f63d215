"""Tests of ONNX: writing, reading, pipelines and verification."""
