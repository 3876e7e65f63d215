"""Pipelines of scikit-learn's transformers around an estimator of nbdense's, and their files.

A file is skops's: a zip archive of JSON and arrays. It loads only what is on skops's list of harmless types or on ours,
and nothing that it names is imported before that is known; the network inside is a model file of nbdense's.
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense.commands.errors import CommandError, need_extra
from nbdense.commands.tables.finding import MOST_WORDS
from nbdense.commands.tables.reading import EXTRA
from nbdense.commands.tables.schema import CLASSIFICATION, Schema

LARGEST = 2**30  # bytes of an unpacked file


def new_pipeline(schema: Schema, features: Any, options: dict[str, Any]) -> Any:
    """Return a pipeline that reads a table's columns, not fitted yet.

    Numbers and dates get the median for missing cells and are standardised, booleans get the commoner value; of text,
    the commonest words become a column each.

    Parameters
    ----------
    schema : Schema
        The columns.
    features : DataFrame
        The rows that it will be fitted on, whose words are counted.
    options : dict
        Arguments of the estimator.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from nbdense.estimators import MLPClassifier, MLPRegressor

    words = schema.names("text")
    encoder = OneHotEncoder(
        categories=[_commonest(features[name]) for name in words],
        handle_unknown="ignore",
        sparse_output=False,
        dtype=np.float32,
    )
    parts = [
        (kind, make_pipeline(SimpleImputer(strategy=strategy, keep_empty_features=True), StandardScaler()), names)
        for kind, strategy, names in (
            ("numbers", "median", schema.names("number", "date")),
            ("booleans", "most_frequent", schema.names("boolean")),
        )
        if names
    ]
    if words:
        parts.append(("words", encoder, words))
    mlp = MLPClassifier if schema.task == CLASSIFICATION else MLPRegressor
    return Pipeline([("columns", ColumnTransformer(parts)), ("mlp", mlp(**options))])


def _commonest(cells: Any) -> npt.NDArray[Any]:
    """Return the commonest words, sorted."""
    counts = cells.value_counts()
    return np.array(sorted(counts.index[:MOST_WORDS]), object)


def rows_for_network(pipeline: Any, features: Any) -> npt.NDArray[Any]:
    """Return what the pipeline's network reads.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    features : DataFrame
        Columns of data.
    """
    rows: npt.NDArray[Any] = pipeline[:-1].transform(features)
    return rows


def columns_of_network(pipeline: Any) -> list[str]:
    """Return what the columns are called that the pipeline's network reads.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    """
    return [str(name).partition("__")[2] for name in pipeline[:-1].get_feature_names_out()]


def pipeline_bytes(pipeline: Any) -> bytes:
    """Return the content of a pipeline's file.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted.
    """
    content: bytes = _skops().dumps(pipeline, compression=zipfile.ZIP_DEFLATED)
    return content


def load_pipeline(path: Path) -> Any:
    """Read a pipeline's file.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    CommandError
        If there is none, it is damaged, or names a type that no pipeline of `train`'s holds.
    """
    if not path.is_file():
        raise CommandError(f"no pipeline file at {path}")
    sio = _skops()
    from nbdense.estimators import MLPClassifier, MLPRegressor

    estimators = (MLPClassifier, MLPRegressor)
    trusted = ["numpy.dtype", *(f"{kind.__module__}.{kind.__qualname__}" for kind in estimators)]
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise CommandError(f"{path} would unpack to more than {LARGEST:,} bytes: it is not loaded")
        strangers = set(sio.get_untrusted_types(data=content)) - set(trusted)
        if strangers:
            raise CommandError(f"{path} names {min(strangers)}, which no pipeline of nbdense's holds: it is not loaded")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another version of scikit-learn's
            pipeline = sio.loads(content, trusted=trusted)
    except CommandError:
        raise
    except Exception as error:  # a damaged archive, its JSON or its arrays: skops has no class of its own for them
        raise CommandError(f"{path} is damaged, or no pipeline file: {' '.join(str(error).split())}") from error
    steps = getattr(pipeline, "steps", None)
    if not steps or not isinstance(steps[-1][1], estimators):
        raise CommandError(f"{path} holds no pipeline that ends in an estimator of nbdense's")
    return pipeline


def _skops() -> Any:
    with need_extra(EXTRA, "pipeline files"):
        import skops.io

        return skops.io
