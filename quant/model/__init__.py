"""Quantized networks: their layers, what they check, the program that runs them, and what users hold."""
