"""Tests of quantization and pruning."""
