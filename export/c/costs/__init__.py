"""Costs of programs on processors: measured numbers, and sums of these."""
