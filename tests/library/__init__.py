"""Tests of the library as a whole: its errors, its processes, its extension, Keras's code."""
