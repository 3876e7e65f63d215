"""Loops over memory that know nothing of layers: products, transposes, gathering, random numbers, norms."""
