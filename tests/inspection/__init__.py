"""Tests of what a model tells of itself."""
