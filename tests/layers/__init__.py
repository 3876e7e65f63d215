"""Tests of the layers, and of what their parameters start from and are penalised by."""
