"""Tests of the integer kernels, to the last bit."""
