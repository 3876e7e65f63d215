"""Tests of prediction by NumPy alone."""
