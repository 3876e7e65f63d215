"""Files of a folder that `train` writes."""

SCHEMA, PIPELINE, NETWORK, GRAPH = "columns.json", "pipeline.skops", "network.safetensors", "pipeline.onnx"
METRICS = "metrics.json"
