"""What reading and writing share, and neither belongs to: an ONNX graph in the making, its checks, its opsets."""
