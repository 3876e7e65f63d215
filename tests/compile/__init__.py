"""Tests of the compile policy's package: cache, threads, instruction sets, plain Python."""
