"""Sparse inference: models whose dense layers are run without their zero weights, where that is faster."""
