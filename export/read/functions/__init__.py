"""Functions of one number in an ONNX graph: which activation they are, and onnxruntime's own operators of them."""
