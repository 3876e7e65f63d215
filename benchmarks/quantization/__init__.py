"""The cost of quantization in accuracy, beside onnxruntime's quantizers, over seeds."""
