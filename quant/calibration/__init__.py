"""Ranges of tensors, observed on calibration data."""
