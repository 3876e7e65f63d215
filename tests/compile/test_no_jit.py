"""Every kernel as plain Python too: what debuggers step through, and what runs where numba cannot compile."""

from tests.support.python_process import run_tests


def test_kernels_without_the_jit():
    """The tests marked "kernels", in a process with the JIT disabled."""
    assert run_tests(r"mark\.kernels", "-m", "kernels", NUMBA_DISABLE_JIT="1") > 500
