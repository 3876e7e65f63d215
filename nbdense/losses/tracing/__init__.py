"""Losses from functions that NumPy can run: what one does to a row is recorded, differentiated and compiled."""

from nbdense.losses.tracing.recording import Traced as Traced
from nbdense.losses.tracing.recording import record as record
from nbdense.losses.tracing.writing import write_loop as write_loop
