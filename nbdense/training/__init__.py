"""Training of a network: data, phases, the memory of a run, and the loops around the compiled program."""
