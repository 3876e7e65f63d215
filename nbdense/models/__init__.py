"""Sequential, and the files that hold it."""

from nbdense.models.sequential import Sequential as Sequential
from nbdense.models.sequential import load_model as load_model
