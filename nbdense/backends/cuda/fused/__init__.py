"""Whole networks of narrow dense layers in one launch."""
