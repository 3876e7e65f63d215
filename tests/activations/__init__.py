"""Tests of the activations, the library's and a user's."""
