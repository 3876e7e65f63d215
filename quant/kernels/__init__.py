"""Compiled loops of quantized networks, and of the solvers that make them."""
