"""Tests of the optimizers and their schedules."""
