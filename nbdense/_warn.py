"""Warnings that point at the user's line, from however deep in the package."""

from __future__ import annotations

import inspect
import warnings


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Give a warning as of the line that called the package.

    Parameters
    ----------
    message : str
        What it says.
    category : type of Warning
        Its class.
    """
    level, frame = 1, inspect.currentframe()
    # By names of modules, for the package lies in several folders where it is installed editable.
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
