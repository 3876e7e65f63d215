"""Common ground of reading and writing: an ONNX graph in the making, its checks, its opsets."""
