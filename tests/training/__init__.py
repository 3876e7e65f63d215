"""Tests of training: its steps, its bits, its memory, and that it learns."""
