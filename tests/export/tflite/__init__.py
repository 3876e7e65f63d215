"""Tests of TFLite files."""
