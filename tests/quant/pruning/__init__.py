"""Tests of pruning: what goes, when, and what a model is then."""
