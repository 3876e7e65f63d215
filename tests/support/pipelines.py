"""Pipelines of scikit-learn's that end in nbdense's estimators, columns for them, and what runs their files."""

import warnings

import numpy as np
import onnxruntime as ort
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from nbdense.estimators import MLPClassifier


def people(rows=120):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows),
            "height": rng.normal(1.7, 0.1, rows).astype(np.float32),
            "unused": rng.standard_normal(rows),
            "city": rng.choice(["Rome", "Oslo", "Kyōto"], rows),
            "rooms": rng.integers(1, 5, rows),
            "number": rng.choice([2**40 + 1, 2**40 + 2], rows),
            "rents": rng.random(rows) < 0.5,
        }
    )


PEOPLE = people()
ROMAN = np.where(PEOPLE["city"] == "Rome", "yes", "no")


def fit(steps, X, y, estimator=MLPClassifier, **options):
    options = {"hidden_layer_sizes": (8,), "max_iter": 15, "learning_rate_init": 0.02, "random_state": 0} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(*steps, estimator(**options)).fit(X, y)


def run(model, **feed):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def columns():
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore")
    return ColumnTransformer([("numbers", numbers, ["age", "height"]), ("words", words, ["city", "rooms", "number"])])
