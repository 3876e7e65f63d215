"""Pipelines of scikit-learn as ONNX files."""
