"""Tests of the compiled program and its kernels."""
