"""Networks as C99: a source and a header for a microcontroller, and the proof that they compute nbdense's integers."""
