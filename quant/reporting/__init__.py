"""Reports on what quantization did."""
