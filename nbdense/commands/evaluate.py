"""``nbdense evaluate``: a pipeline's scores on a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nbdense.commands.tables.cells import features_of, target_of
from nbdense.commands.trained.folder import TrainedFolder
from nbdense.commands.trained.loading import read_for
from nbdense.commands.trained.scores import score_text, scores_of


def run(model: Path, data: Path, drop: Collection[str], separator: str | None) -> dict[str, Any]:
    """Score a pipeline's predictions.

    Parameters
    ----------
    model : Path
        The folder.
    data : Path
        The table's file, which has the target.
    drop : collection of str
        Columns of the table that are left out.
    separator : str or None
        What stands between the cells of a CSV file.

    Raises
    ------
    CommandError
        If the folder or the table will not do.
    """
    trained = TrainedFolder.open(model)
    table = read_for(trained.schema, data, drop, separator)
    targets, there = target_of(table, trained.schema, str(data))
    features = features_of(table, trained.schema, str(data))
    return scores_of(trained.pipeline, features[there], targets, trained.schema.task)


def report(scores: Mapping[str, Any]) -> str:
    """Return the text of the scores.

    Parameters
    ----------
    scores : mapping
        What `run` returned.
    """
    lines = [score_text(scores)]
    if "classes" in scores:
        width = max(5, *(len(str(entry["label"])) for entry in scores["classes"]))
        lines.append(f"{'class':<{width}}{'rows':>10}{'precision':>12}{'recall':>9}")
        lines += [
            f"{entry['label']!s:<{width}}{entry['rows']:>10,}{entry['precision']:>12.2%}{entry['recall']:>9.2%}"
            for entry in scores["classes"]
        ]
    return "\n".join(lines)
