"""Scales and integers of kernels."""
