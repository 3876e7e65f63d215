"""The CPU's backend: the memory of runs, the threads that they borrow, and the calls into the compiled programs."""
