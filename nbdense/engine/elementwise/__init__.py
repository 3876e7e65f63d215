"""Elementwise mathematics, compiled: elementary functions, activations, losses, optimizer steps."""
