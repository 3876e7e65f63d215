"""Trained pipelines: their files, their scores, and the folder that `train` writes of them."""
