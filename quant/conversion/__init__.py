"""From a float network to the layers of a quantized one."""
