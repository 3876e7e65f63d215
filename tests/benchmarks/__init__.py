"""Tests of the benchmarks: nothing is timed."""
