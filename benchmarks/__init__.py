"""Benchmarks of nbdense beside its peers: ``python -m benchmarks``, or ``make bench`` from nothing."""
