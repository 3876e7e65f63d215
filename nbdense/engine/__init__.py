"""The compiled engine: kernels, and the few entries that walk a network's layer table."""
