"""The proof that onnxruntime computes what nbdense does."""
