"""Layers as steps of a C program: their numbers, made in advance, and the calls."""
