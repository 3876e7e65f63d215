"""Threads for tests of small networks."""

import pytest

import nbdense as nb
from nbdense._compile import thread_pool


@pytest.fixture
def set_threads(monkeypatch):
    """The function that sets how many threads there are, each of which then gets work, however little that is."""
    monkeypatch.setattr(thread_pool, "_chosen", thread_pool._chosen)
    monkeypatch.setattr(thread_pool, "PARALLEL_FLOPS", dict.fromkeys(thread_pool.PARALLEL_FLOPS, 0.0))
    monkeypatch.setattr(thread_pool, "LEAST_PARALLEL_FLOPS", 0.0)
    return nb.set_num_threads
