"""JSON as every program reads it: without NaN and infinity, which it lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(data: Any, indent: int | None = 2) -> str:
    """Write data as JSON: null for numbers that are not finite, strings for what JSON lacks.

    Parameters
    ----------
    data : object
        Mappings, lists, strings, numbers and the like, NumPy's included.
    indent : int, optional
        Spaces of each level; None: all in one line.

    Examples
    --------
    >>> json_text({"r2": float("nan"), "rows": 3}, None)
    '{"r2": null, "rows": 3}'
    """
    return json.dumps(_plain(data), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple | set | frozenset):
        return [_plain(value) for value in data]
    if hasattr(data, "tolist"):
        return _plain(data.tolist())
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return data if isinstance(data, str | int | bool | None) else str(data)
