"""Tests of Sequential and of its files."""
