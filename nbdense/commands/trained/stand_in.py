"""Rows drawn from what metrics.json says of the columns: they stand in where no data is at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS = 512


def stand_in_rows(metrics: Mapping[str, Any], rows: int = ROWS) -> Any:
    """Return rows whose cells lie where those of the training lay, a tenth of the gappy columns' missing.

    Parameters
    ----------
    metrics : mapping
        What metrics.json says.
    rows : int
        How many.

    Returns
    -------
    DataFrame
        As `features_of` gives it.
    """
    import pandas as pd

    random = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for entry in metrics["data"]["columns"]:
        gaps = random.random(rows) < (0.1 if entry["missing"] else 0.0)
        if entry["kind"] == "text":
            words = np.array([*entry["commonest"], ""] if entry["commonest"] else [""], object)
            cells: Any = random.choice(words[: len(words) - (not entry["missing"] and len(words) > 1)], rows)
            cells[gaps] = ""
        else:
            low, high = entry.get("least", 0.0), entry.get("largest", 0.0)
            cells = random.uniform(low, high, rows)
            cells = np.round(cells) if entry["kind"] in ("boolean", "date") else cells
            cells[gaps] = np.nan
        columns[entry["name"]] = cells
    return pd.DataFrame(columns)
