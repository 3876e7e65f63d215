"""Sequential, and the files that hold it."""

from nbdense.models.cloning import clone_model as clone_model
from nbdense.models.cloning import model_from_json as model_from_json
from nbdense.models.loading import load_model as load_model
from nbdense.models.sequential import Sequential as Sequential
