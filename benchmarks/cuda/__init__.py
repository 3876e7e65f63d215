"""The CUDA engine beside torch on the same GPU."""
