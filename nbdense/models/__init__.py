"""Sequential, and the files that hold it."""

from nbdense.models.loading import load_model as load_model
from nbdense.models.sequential import Sequential as Sequential
