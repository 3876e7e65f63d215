"""A table's columns in figures: how many cells are missing, the least and the largest, the commonest words."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdense.commands.tables.schema import Schema

BINS = 20
COMMONEST = 8


def summary_of(features: Any, schema: Schema) -> list[dict[str, Any]]:
    """Summarise the columns that a model reads.

    Parameters
    ----------
    features : DataFrame
        As `features_of` gives them.
    schema : Schema
        What they are.

    Returns
    -------
    list of dict
        Name, kind and missing cells of each; of text its words and how often the commonest come, else the mean, the
        least and largest, and a histogram.
    """
    summaries = []
    for column in schema.columns:
        values = features[column.name].to_numpy()
        entry: dict[str, Any] = {"name": column.name, "kind": column.kind}
        if column.kind == "text":
            words, counts = np.unique(values.astype(str), return_counts=True)
            order = np.argsort(-counts, kind="stable")
            known = [(str(words[i]), int(counts[i])) for i in order if words[i]]
            entry |= {
                "missing": int((values == "").sum()),
                "different": len(known),
                "commonest": dict(known[:COMMONEST]),
            }
        else:
            there = values[~np.isnan(values)]
            entry |= {"missing": len(values) - len(there), "different": len(np.unique(there)), **figures_of(there)}
        summaries.append(entry)
    return summaries


def figures_of(values: Any) -> dict[str, Any]:
    """Return mean, ends and histogram of numbers; nothing of none.

    Parameters
    ----------
    values : ndarray, (values,)
        Finite numbers.
    """
    if not len(values):
        return {}
    counts, edges = np.histogram(values.astype(np.float64), BINS)
    return {
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "least": float(values.min()),
        "largest": float(values.max()),
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }
