"""The reference: slow, obvious NumPy that imports nothing of nbdense, and its own checks."""
