"""Looking into a model: summaries, diagnosis, importance of inputs, plots."""
