"""Tests of the nbdense command."""
