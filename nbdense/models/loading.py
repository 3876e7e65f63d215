"""Loading of whichever kind of model a file holds: above the classes that it makes, of which it imports none."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from typing import Any

from nbdense import _registry
from nbdense.compression import open_tensors
from nbdense.files import FileFormatError

# The reader of each kind of file, imported when such a file comes.
READERS = {
    "model": "nbdense.models.files:load_sequential",
    "quantized model": "nbdense.quant.model.model:QuantizedModel.from_file",
    "sparse model": "nbdense.quant.sparse.model:SparseModel.from_file",
}


def load_model(path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Read a model that `Sequential.save`, `QuantizedModel.save` or `SparseModel.save` wrote.

    Parameters
    ----------
    path : path
        The file.
    custom_objects : mapping of str to object, optional
        One's own activations, losses, metrics and initializers by name: a file names them, and never brings their
        code.

    Returns
    -------
    Sequential, QuantizedModel or SparseModel

    Raises
    ------
    nbdense.files.FileFormatError
        If the file is damaged, truncated, not ours, of a newer format, or names what ``custom_objects`` has not.
    """
    file = open_tensors(path)
    if file.kind not in READERS:
        raise FileFormatError(f"{file.path} holds a {file.kind!r}, which this nbdense does not know")
    with _registry.custom_objects(custom_objects):
        return pkgutil.resolve_name(READERS[file.kind])(file)
