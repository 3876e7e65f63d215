"""Tests of `nbdense.export.frameworks`."""
