"""``nbdense predict``: a table's rows become predictions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from nbdense.commands.errors import writing
from nbdense.commands.tables.cells import features_of
from nbdense.commands.tables.json_text import json_text
from nbdense.commands.trained.folder import TrainedFolder
from nbdense.commands.trained.loading import read_for
from nbdense.files import atomic_write

SLICE = 2**16  # rows whose features are in memory at a time


def run(model: Path, data: Path, probabilities: bool, drop: Collection[str], separator: str | None) -> Any:
    """Predict the rows of a table.

    Parameters
    ----------
    model : Path
        The folder.
    data : Path
        The table's file.
    probabilities : bool
        Whether to give each class's too.
    drop : collection of str
        Columns of the table that are left out.
    separator : str or None
        What stands between the cells of a CSV file.

    Returns
    -------
    DataFrame
        "prediction", and "probability of ..." for each class.

    Raises
    ------
    CommandError
        If the folder or the table will not do.
    """
    trained = TrainedFolder.open(model)
    table = read_for(trained.schema, data, drop, separator)
    return predictions(trained.pipeline, features_of(table, trained.schema, str(data)), probabilities)


def predictions(pipeline: Any, features: Any, probabilities: bool) -> Any:
    """Return a pipeline's predictions, computed slice by slice.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    features : DataFrame
        Columns of data.
    probabilities : bool
        Whether to give each class's too.
    """
    import pandas as pd

    classes = getattr(pipeline, "classes_", None)
    compute = pipeline.predict if classes is None else pipeline.predict_proba
    starts = range(0, len(features), SLICE)
    outputs = np.concatenate([compute(features.iloc[start : start + SLICE]) for start in starts])
    if classes is None:
        return pd.DataFrame({"prediction": outputs})
    answers = {"prediction": classes[outputs.argmax(axis=1)]}
    if probabilities:
        answers |= {f"probability of {label}": outputs[:, number] for number, label in enumerate(classes)}
    return pd.DataFrame(answers)


def csv_text(answers: Any) -> str:
    """Return predictions as CSV.

    Parameters
    ----------
    answers : DataFrame
        What `run` returned.
    """
    return str(answers.to_csv(index=False, lineterminator="\n"))


def records(answers: Any) -> list[dict[str, Any]]:
    """Return predictions for JSON, an object a row.

    Parameters
    ----------
    answers : DataFrame
        What `run` returned.
    """
    return list(answers.to_dict(orient="records"))


def write(path: Path, answers: Any) -> None:
    """Write predictions in one step, as JSON where the suffix says so, else as CSV.

    Parameters
    ----------
    path : Path
        The file; replaced if it exists.
    answers : DataFrame
        What `run` returned.

    Raises
    ------
    CommandError
        If it cannot be written; what was there before is untouched.
    """
    text = json_text(records(answers)) if path.suffix.lower() == ".json" else csv_text(answers)
    with writing(path):
        atomic_write(path, text.encode())
